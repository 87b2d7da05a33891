package balancer

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"
)

// Snapshot is the immutable state of a pool at one time: callers must not change its
// slices. Its peers live on and change.
type Snapshot struct {
	// Generation counts the snapshots of the pool, from 1.
	Generation uint64
	Policy     Policy
	// Part is the whole pool.
	Part
	// Groups has the groups of Options.Groups, then RestGroup; nil without groups. Each
	// peer of All is in one.
	Groups []*Part
	// Panic: too few of All are healthy, so Eligible includes peers that active
	// checks or ejection would exclude; see Options.PanicThreshold.
	Panic bool
	// Draining are the peers that left the set and have requests in flight, and those of a
	// pool that has been retired; sorted as All.
	Draining []*Peer

	byID       []*Part    // Groups by GroupID; nil for others
	used       []*Peer    // eligible in the whole pool or in a group, sorted
	limiters   []*limiter // of Tiers; nil for one without peers
	tables     maglevs
	terms      terms
	superseded chan struct{} // closed when the next snapshot is stored
}

// build makes the snapshot that follows prev. It depends on its arguments and the
// conditions of the peers only, and changes none of them. groups become
// Snapshot.Groups; now is for slow start, inflight for PolicyHash.
func build(prev *Snapshot, o *Options, groups []*Group, inflight *atomic.Int64, all, draining []*Peer, now time.Time) *Snapshot {
	whole := newPeerSets(all)
	s := &Snapshot{
		Generation: prev.Generation + 1,
		Policy:     o.Policy,
		Panic:      whole.panics(o),
		Draining:   draining,
		tables:     prev.tables.next(),
		terms:      newTerms(o),
		superseded: make(chan struct{}),
	}
	s.Part = s.newPart(o, whole, nil, inflight, now)
	s.used = s.Eligible
	if len(groups) > 0 {
		s.divide(o, groups, whole.byGroup(len(groups)), now)
	}
	return s
}

// divide makes the parts of groups. Panic is decided for the whole pool: while enough of it
// is healthy, a group without a healthy peer is empty, so that requests can go to
// another one.
func (s *Snapshot) divide(o *Options, groups []*Group, members []peerSets, now time.Time) {
	for i, g := range groups {
		part := s.newPart(o, members[i], g, nil, now)
		s.Groups = append(s.Groups, &part)
		if missing := int(g.id) + 1 - len(s.byID); missing > 0 {
			s.byID = append(s.byID, make([]*Part, missing)...)
		}
		s.byID[g.id] = &part
	}
	if o.Subset.Size == 0 {
		return // a group uses no other peers than the pool
	}
	for _, part := range s.Groups {
		s.used = slices.Concat(s.used, part.Eligible)
	}
	slices.SortFunc(s.used, comparePeers)
	s.used = slices.Compact(s.used)
}

// Rivals returns the peers that share requests, by group and tier. Those in slow start may do worse
// than the others for a good reason, and in panic all may: they are left out.
func (s *Snapshot) Rivals() (sets [][]*Peer) {
	if s.Panic {
		return nil
	}
	for _, part := range s.parts() {
		for _, peers := range part.inTiers {
			sets = append(sets, slices.DeleteFunc(slices.Clone(peers), func(p *Peer) bool { return !p.condition.Load().warmFrom.IsZero() }))
		}
	}
	return sets
}

// Recovered returns how often the checks of a peer, the registry's or active ones, have passed
// again.
func (s *Snapshot) Recovered(p *Peer) int { return p.condition.Load().recovered }

// OneLeader reports whether All has at most the leader of the service.
func (s *Snapshot) OneLeader() bool { return s.terms.oneLeader }

// parts returns the groups, or the whole without groups.
func (s *Snapshot) parts() []*Part {
	if s.Groups == nil {
		return []*Part{&s.Part}
	}
	return s.Groups
}

// part returns a group, or the whole pool for a group that it does not have.
func (s *Snapshot) part(id GroupID) *Part {
	if int(id) < len(s.byID) && s.byID[id] != nil {
		return s.byID[id]
	}
	return &s.Part
}

// Usable returns the number of peers that may get the requests of a group; 0 is the whole pool.
// lost is how many of them the registry has lost.
func (s *Snapshot) Usable(group GroupID) (n, lost int) {
	part := s.part(group)
	return len(part.Eligible), part.lost
}

// Foresee returns the peers of which Pick would choose one for q, and the errors of the limits with
// which it fails at times, or the error with which it would fail.
func (s *Snapshot) Foresee(q *Query) (peers []*Peer, limits []error, err error) {
	part := s.part(q.Group)
	if len(part.Eligible) == 0 && q.Fallback != 0 {
		part = s.part(q.Fallback)
	}
	if len(part.Eligible) == 0 {
		return nil, nil, part.refusal()
	}
	if s.terms.adaptive != nil {
		limits = append(limits, ErrOverload)
	}
	if s.terms.Requests < noLimit {
		limits = append(limits, ErrSaturated)
	}
	if s.terms.perPeer < noLimit {
		limits = append(limits, limitErrors[s.terms.perPeerKind])
	}
	return part.Eligible, limits, nil
}

// Another reports whether a peer that is neither than nor in q.Tried may get the request.
func (s *Snapshot) Another(q *Query, than *Peer) bool {
	for _, group := range [...]GroupID{q.Group, cmp.Or(q.Fallback, q.Group)} {
		for _, peer := range s.part(group).Eligible {
			if peer != than && !q.Tried.Has(peer) {
				return true
			}
		}
	}
	return false
}

// withDraining returns the snapshot that follows s if only draining peers changed.
func (s *Snapshot) withDraining(draining []*Peer) *Snapshot {
	next := *s
	next.Generation++
	next.Draining = draining
	next.superseded = make(chan struct{})
	return &next
}

// retired returns the snapshot that follows s when all peers drain, and are still picked.
func (s *Snapshot) retired(draining []*Peer) *Snapshot {
	next := s.withDraining(draining)
	next.All = nil
	return next
}

// current is the snapshot that picks use. It is replaced with Pool.mu held.
type current struct{ atomic.Pointer[Snapshot] }

func (c *current) replace(next *Snapshot) { close(c.Swap(next).superseded) }
