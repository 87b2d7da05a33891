package balancer

import (
	"cmp"
	"math"
	"sync/atomic"
)

const (
	// hashJumps is how many further hash values a request tries.
	hashJumps = 32
	// chance is how many standard deviations a peer may exceed its share of the
	// requests in flight. With few requests a random peak is no overload: with 10
	// on average, a bound of 1.25 is exceeded in a fifth of the time.
	chance = 3
)

// hashed sends requests with the same Query.Hash to the same peer, and requests without
// one to any.
//
// The table has places for all peers of the set, so a peer that is not eligible for a
// while gets its own requests back, and no other requests move. A peer in slow start
// takes a growing part of its hash values.
//
// No peer has more than bound times its share of the requests in flight, apart from
// chance. The surplus goes to the next peer of the hash (V. Mirrokni, M. Thorup, M.
// Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018), found with
// another hash, which spreads one peer's surplus over all others (J. Chen, B. Coleman,
// A. Shrivastava, "Revisiting Consistent Hashing with Bounded Loads", AAAI 2021).
type hashed struct {
	table      *maglev
	members    []hashedMember // as in table.addresses
	candidates []candidate
	bound      float64
	inflight   *atomic.Int64 // of the whole pool or group
	own        int64         // 1 if inflight does not include the request to pick for
}

type hashedMember struct {
	peer   *Peer
	seed   uint64
	accept uint64  // part of its hash values that it takes, of 2³²; 0 if not eligible
	share  float64 // of the requests in flight
}

func newHashed(l *pickerInput) picker {
	addresses, weights := make([]string, len(l.all)), make([]int, len(l.all))
	for i, p := range l.all {
		addresses[i], weights[i] = p.ID.Address, p.condition.Load().usualWeight()
	}
	h := &hashed{
		table: l.tables.get(addresses, weights), members: make([]hashedMember, len(l.all)),
		candidates: l.candidates, bound: cmp.Or(l.hashBound, math.Inf(1)), inflight: l.inflight, own: l.own,
	}
	total := totalWeight(l.candidates)
	next := 0 // candidates are in the order of all
	for i, p := range l.all {
		h.members[i] = hashedMember{peer: p, seed: h.table.seeds[i]}
		if next < len(l.candidates) && l.candidates[next].peer == p {
			c := l.candidates[next]
			h.members[i].accept = uint64(min(c.factor, 1) * (1 << 32))
			h.members[i].share = float64(c.weight) / total
			next++
		}
	}
	return h
}

func (h *hashed) pick(q Query, _ int64, _ *atomic.Uint64) *Peer {
	inflight := float64(h.inflight.Load() + h.own)
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

// takes reports whether the member is eligible and accepts this hash value.
func (m *hashedMember) takes(hash uint64) bool {
	return m.accept == 1<<32 || mix(hash^m.seed)>>32 < m.accept
}

// hasRoom reports whether a peer with this share of the requests may have one more.
func (h *hashed) hasRoom(p *Peer, due float64) bool {
	return float64(withoutCopies(p.load.Load())) < max(h.bound*due, due+chance*math.Sqrt(due))
}

// anyOther is for a request that no member took within hashJumps: few peers are
// eligible, or nearly all were tried.
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
