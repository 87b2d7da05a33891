package balancer

import (
	"math"
	"sync/atomic"
)

const (
	// hashJumps is how often a request looks further when it cannot be sent to
	// the peer of its hash.
	hashJumps = 32
	// chance is how many standard deviations above its share of the requests in
	// flight a peer may be in any case. Of few requests many happen to meet at
	// one peer, which is no overload, and to send them elsewhere would miss what
	// the policy is for: with 10 on average, 1.25 times that is exceeded in a
	// fifth of the time.
	chance = 3
)

// hashed sends requests with the same Query.Hash to the same peer, and those
// without to any.
//
// All peers of the set have their places in the table, so that one that is not
// eligible for a while keeps its own: its requests go elsewhere and come back,
// and nobody else's move. A peer that warms takes the part of its requests for
// which a hash of both says so, a part that grows.
//
// No peer has more than bound times its share of all requests in flight, but for
// what is chance: what is too much goes on to the next peer of the request's,
// which is the same again for the same hash (V. Mirrokni, M. Thorup, M. Zadimoghaddam,
// "Consistent Hashing with Bounded Loads", SODA 2018). The next peer is found
// with another hash, a random jump, which spreads one peer's surplus over all
// others (J. Chen, B. Coleman, A. Shrivastava, "Revisiting Consistent Hashing
// with Bounded Loads", AAAI 2021).
type hashed struct {
	table      *maglev
	members    []hashedMember // as in table.addresses
	candidates []candidate
	bound      float64
	inflight   *atomic.Int64 // of the whole pool
}

type hashedMember struct {
	peer   *Peer
	seed   uint64
	accept uint64  // share of its hash values that it takes, of 2³²; 0: it is not eligible
	share  float64 // of the requests in flight that are its due
}

func newHashed(l *lineup) picker {
	addresses, weights := make([]string, len(l.all)), make([]int, len(l.all))
	for i, p := range l.all {
		addresses[i], weights[i] = p.ID.Address, p.condition.Load().usualWeight()
	}
	h := &hashed{
		table: l.tables.get(addresses, weights), members: make([]hashedMember, len(l.all)),
		candidates: l.candidates, bound: l.hashBound, inflight: l.inflight,
	}
	total := totalWeight(l.candidates)
	next := 0 // candidates are in the order of all
	for i, p := range l.all {
		h.members[i] = hashedMember{peer: p, seed: h.table.seeds[i]}
		if next < len(l.candidates) && l.candidates[next].peer == p {
			c := l.candidates[next]
			h.members[i].accept = uint64(c.warmth * (1 << 32))
			h.members[i].share = float64(c.weight) / total
			next++
		}
	}
	return h
}

func (h *hashed) pick(q Query, _ int64, _ *atomic.Uint64) *Peer {
	inflight := float64(h.inflight.Load()) // this request included
	if q.Hash == 0 {
		q.Hash = q.random.uint64()
	}
	hash := q.Hash
	for range hashJumps {
		m := &h.members[h.table.at(hash)]
		if m.takes(hash) && h.hasRoom(m.peer, m.share*inflight) && !q.Tried.Has(m.peer) {
			return m.peer
		}
		hash = mix(hash + 1)
	}
	return h.anyOther(&q, inflight)
}

// takes reports whether the member is eligible and, while it warms, whether
// this hash is among those that it takes already.
func (m *hashedMember) takes(hash uint64) bool {
	return m.accept == 1<<32 || mix(hash^m.seed)>>32 < m.accept
}

// hasRoom reports whether a peer may have one request more, when so many are its
// due.
func (h *hashed) hasRoom(p *Peer, due float64) bool {
	return float64(p.load.Load()) < max(h.bound*due, due+chance*math.Sqrt(due))
}

// anyOther is for a request that has been turned away many times: few of many
// peers are eligible, or it has tried nearly all.
func (h *hashed) anyOther(q *Query, inflight float64) *Peer {
	n := len(h.candidates)
	start := int(q.Hash % uint64(n))
	average := inflight / float64(n)
	for i := range min(n, maxLooks) {
		c := &h.candidates[(start+i)%n]
		if h.hasRoom(c.peer, average/c.burden) && !q.Tried.Has(c.peer) {
			return c.peer
		}
	}
	if c := untried(h.candidates, start, &q.Tried); c != nil {
		return c.peer
	}
	return nil
}
