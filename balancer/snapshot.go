package balancer

import (
	"sync/atomic"
	"time"
)

// Snapshot is the state of a pool at one time. It is immutable: callers must
// not change its slices. The peers in it live on and change.
type Snapshot struct {
	// Generation counts the snapshots of the pool, from 1.
	Generation uint64
	// Policy is how peers are chosen.
	Policy Policy
	// All are the peers of the set, sorted by service, node, id and address.
	All []*Peer
	// Eligible are those of All that get requests.
	Eligible []*Peer
	// Panic says that too few of All were left to get requests, so that Eligible
	// includes peers that active checks or ejection would exclude; see
	// Options.PanicThreshold.
	Panic bool
	// Draining are the peers that left the set and still have requests in
	// flight, sorted as All.
	Draining []*Peer

	picker     picker
	tables     maglevs
	terms      terms
	superseded chan struct{} // closed when the next snapshot is stored
}

// build makes the snapshot that follows prev, of the peers in the set and of
// those that left it. It depends on nothing but its arguments and the
// conditions of the peers, and changes none of them. now is for slow start,
// inflight for PolicyHash.
func build(prev *Snapshot, o *Options, inflight *atomic.Int64, all, draining []*Peer, now time.Time) *Snapshot {
	s := &Snapshot{
		Generation: prev.Generation + 1,
		Policy:     o.Policy,
		All:        all,
		Draining:   draining,
		tables:     prev.tables.next(),
		terms:      newTerms(o),
		superseded: make(chan struct{}),
	}
	s.Eligible, s.Panic = eligible(all, o.PanicThreshold)
	candidates := make([]candidate, len(s.Eligible))
	for i, p := range s.Eligible {
		candidates[i] = candidate{peer: p, weight: p.condition.Load().weight(), warmth: 1}
	}
	o.SlowStart.apply(candidates, now)
	s.picker = newPicker(o.Policy, &lineup{
		candidates: candidates, all: all, hashBound: o.HashBound, inflight: inflight, tables: &s.tables,
	})
	return s
}

// eligible returns the peers that get requests, and whether that is because too
// few would without panic.
func eligible(all []*Peer, panicThreshold float64) (peers []*Peer, panic bool) {
	var inPanic []*Peer
	for _, p := range all {
		c := p.condition.Load()
		if c.eligible() {
			peers = append(peers, p)
		}
		if panicThreshold > 0 && c.usableInPanic() {
			inPanic = append(inPanic, p)
		}
	}
	if float64(len(peers)) < panicThreshold*float64(len(inPanic)) {
		return inPanic, true
	}
	return peers, false
}

// withDraining returns the snapshot that follows s when nothing has changed
// but which peers drain.
func (s *Snapshot) withDraining(draining []*Peer) *Snapshot {
	next := *s
	next.Generation++
	next.Draining = draining
	next.superseded = make(chan struct{})
	return &next
}

// maxLooks bounds how many peers acquireOther looks at one by one.
const maxLooks = 128

// acquireOther picks and acquires a peer in place of one that has as many
// requests in flight as it may have: by the policy if that leads to another in
// a few steps, and else the first there is. It returns nil if there is none,
// or so few among so many that it may be taken for none.
func (s *Snapshot) acquireOther(q Query, now int64, cursor *atomic.Uint64) *Peer {
	without := q
	for range maxTried {
		p := s.picker.pick(without, now, cursor)
		if p == nil {
			break
		}
		if !q.Tried.Has(p) && p.acquire(s.terms.PeerRequests) {
			return p
		}
		without.Tried.Add(p)
	}
	start := q.random.below(len(s.Eligible))
	for i := range min(len(s.Eligible), maxLooks) {
		p := s.Eligible[(start+i)%len(s.Eligible)]
		if p.load.Load() < int64(s.terms.PeerRequests) && !q.Tried.Has(p) && p.acquire(s.terms.PeerRequests) {
			return p
		}
	}
	return nil
}

// refusal says why no peer of s could be picked.
func (s *Snapshot) refusal() error {
	switch {
	case len(s.All) == 0:
		return ErrNoPeers
	case len(s.Eligible) == 0:
		return ErrNoEligible
	}
	return ErrAllTried
}
