package balancer

import (
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
	// All are the peers of the set, sorted by service, id and address.
	All []*Peer
	// Eligible are the peers of All that get requests.
	Eligible []*Peer
	// Panic: too few of All are healthy, so Eligible includes peers that active
	// checks or ejection would exclude; see Options.PanicThreshold.
	Panic bool
	// Tiers are those of Options.Tiers, then the peers that none selects.
	Tiers []Tier
	// Draining are the peers that left the set and have requests in flight, sorted
	// as All.
	Draining []*Peer

	inTiers    [][]*Peer // Eligible by tier
	picker     picker
	tables     maglevs
	terms      terms
	superseded chan struct{} // closed when the next snapshot is stored
}

// build makes the snapshot that follows prev. It depends on its arguments and the
// conditions of the peers only, and changes none of them. now is for slow start,
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
	tiers, shares, panicking := assess(all, o)
	s.Panic = panicking
	pickers := make([]picker, len(tiers))
	for i, t := range tiers {
		t.eligible = o.Subset.of(t)
		candidates := make([]candidate, len(t.eligible))
		for j, p := range t.eligible {
			candidates[j] = candidate{peer: p, weight: p.condition.Load().weight(), warmth: 1}
		}
		o.SlowStart.apply(candidates, now)
		pickers[i] = newPicker(o.Policy, &pickerInput{
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

// assess decides which peers get requests, by tier, and the share of each tier. In
// panic these include failing peers.
func assess(all []*Peer, o *Options) (tiers []tierPeers, shares []float64, panicking bool) {
	var healthy, inPanic []*Peer
	for _, p := range all {
		c := p.condition.Load()
		if c.eligible() {
			healthy = append(healthy, p)
		}
		if c.usableInPanic() {
			inPanic = append(inPanic, p)
		}
	}
	tiers = byTier(all, healthy, o.Tiers)
	shares, room := tierShares(tiers, o.Overprovisioning)
	if enough := float64(len(healthy)) >= o.PanicThreshold*float64(len(inPanic)); enough || len(o.Tiers) > 0 && room >= 1 {
		return tiers, shares, false
	}
	tiers = byTier(all, inPanic, o.Tiers)
	if len(healthy) == 0 {
		shares, _ = tierShares(tiers, o.Overprovisioning)
	} // else keep the shares of the healthy peers: failing ones draw no requests to their tier
	return tiers, shares, true
}

// withDraining returns the snapshot that follows s if only draining peers changed.
func (s *Snapshot) withDraining(draining []*Peer) *Snapshot {
	next := *s
	next.Generation++
	next.Draining = draining
	next.superseded = make(chan struct{})
	return &next
}

// maxLooks bounds the peers that a pick looks at one by one.
const maxLooks = 128

// acquireOther acquires a peer in place of one at its limit: by the policy in a few
// tries, else the first below its limit among maxLooks. It returns nil if it finds
// none.
func (s *Snapshot) acquireOther(q Query, now int64, cursor *atomic.Uint64) *Peer {
	without := q
	for range maxTried {
		p := s.picker.pick(without, now, cursor)
		if p == nil {
			break
		}
		if !q.Tried.Has(p) && p.acquire(s.terms.perPeer) {
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
			if p.load.Load() < int64(s.terms.perPeer) && !q.Tried.Has(p) && p.acquire(s.terms.perPeer) {
				return p
			}
		}
	}
	return nil
}

// refusal returns the error of a pick that found no peer.
func (s *Snapshot) refusal() error {
	switch {
	case len(s.All) == 0:
		return ErrNoPeers
	case len(s.Eligible) == 0:
		return ErrNoEligible
	}
	return ErrAllTried
}
