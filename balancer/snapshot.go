package balancer

// Snapshot is the state of a pool at one time. It is immutable: callers must
// not change its slices. The peers it holds live on and change.
type Snapshot struct {
	// Generation counts the snapshots of the pool, from 1.
	Generation uint64
	// All are the peers of the set, sorted by service, node, id and address.
	All []*Peer
	// Eligible are those of All that requests go to.
	Eligible []*Peer
	// Draining are peers that left the set and still have requests in flight,
	// in the order of All.
	Draining []*Peer

	picker     picker
	superseded chan struct{} // closed when the next snapshot is stored
}

// build makes a snapshot of peers that are in the set and of those that have
// left it, both sorted. It depends on nothing but its arguments and changes
// none of them.
func build(policy Policy, all, draining []*Peer) *Snapshot {
	s := &Snapshot{All: all, Draining: draining, superseded: make(chan struct{})}
	var candidates []candidate
	for _, p := range all {
		if c := p.condition.Load(); c.eligible() {
			s.Eligible = append(s.Eligible, p)
			candidates = append(candidates, candidate{peer: p, weight: c.weight()})
		}
	}
	s.picker = newPicker(policy, candidates)
	return s
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
