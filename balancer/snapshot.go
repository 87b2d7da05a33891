package balancer

import (
	"slices"
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
	// All are the peers of the set, sorted by service, id and address.
	All []*Peer
	// Eligible are those of All that get requests.
	Eligible []*Peer
	// Panic says that too few of All were left to get requests, so that Eligible
	// includes peers that active checks or ejection would exclude; see
	// Options.PanicThreshold.
	Panic bool
	// Tiers are the peers by tier, in the order of Options.Tiers and then those
	// that none selects. Without tiers there is one.
	Tiers []Tier
	// Draining are the peers that left the set and still have requests in
	// flight, sorted as All.
	Draining []*Peer

	inTiers    [][]*Peer // Eligible by tier
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
	tiers, shares, panic := assess(all, o)
	s.Panic = panic
	pickers := make([]picker, len(tiers))
	for i, t := range tiers {
		t.eligible = o.Subset.of(t)
		candidates := make([]candidate, len(t.eligible))
		for j, p := range t.eligible {
			candidates[j] = candidate{peer: p, weight: p.condition.Load().weight(), warmth: 1}
		}
		o.SlowStart.apply(candidates, now)
		pickers[i] = newPicker(o.Policy, &lineup{
			candidates: candidates, all: t.all, hashBound: o.HashBound, inflight: inflight, tables: &s.tables,
		})
		s.inTiers = append(s.inTiers, t.eligible)
		s.Tiers = append(s.Tiers, Tier{Peers: len(t.all), Eligible: len(t.eligible), Share: shares[i]})
	}
	s.Eligible = slices.Concat(s.inTiers...)
	slices.SortFunc(s.Eligible, comparePeers)
	s.picker = newTiered(pickers, shares)
	if o.Policy == PolicySticky {
		s.picker = newSticky(s.Eligible, s.picker)
	}
	return s
}

// assess decides which peers get requests, by tier, and what share of them each
// tier gets. Where too few would, panic is true and others do too.
func assess(all []*Peer, o *Options) (tiers []tierPeers, shares []float64, panic bool) {
	var sound, inPanic []*Peer
	for _, p := range all {
		c := p.condition.Load()
		if c.eligible() {
			sound = append(sound, p)
		}
		if c.usableInPanic() {
			inPanic = append(inPanic, p)
		}
	}
	tiers = byTier(all, sound, o.Tiers)
	shares, room := tierShares(tiers, o.Overprovisioning)
	if enough := float64(len(sound)) >= o.PanicThreshold*float64(len(inPanic)); enough || len(o.Tiers) > 0 && room >= 1 {
		return tiers, shares, false
	}
	tiers = byTier(all, inPanic, o.Tiers)
	if len(sound) == 0 {
		shares, _ = tierShares(tiers, o.Overprovisioning)
	} // else by who is sound: the others are not to draw requests to their tier
	return tiers, shares, true
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
	for _, peers := range s.inTiers {
		if len(peers) == 0 {
			continue
		}
		start := q.random.below(len(peers))
		for i := range min(len(peers), maxLooks) {
			p := peers[(start+i)%len(peers)]
			if p.load.Load() < int64(s.terms.PeerRequests) && !q.Tried.Has(p) && p.acquire(s.terms.PeerRequests) {
				return p
			}
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
