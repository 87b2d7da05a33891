package balancer

import (
	"slices"
	"sync/atomic"
	"time"
)

// Part is what a pick chooses from: the whole pool, or one of its groups. It is
// immutable; callers must not change its slices.
type Part struct {
	// Group is nil for the whole pool.
	Group *Group
	// All are the peers of the set, sorted by service, id and address.
	All []*Peer
	// Eligible are the peers of All that get requests.
	Eligible []*Peer
	// Tiers has the tiers of Options.Tiers, then the peers that none selects; each divided by the
	// priorities of its instances.
	Tiers []Tier

	resort     []*Peer   // see Query.Resort
	lost       int       // number of Eligible peers on probation
	inTiers    [][]*Peer // Eligible by tier
	allInTiers [][]*Peer // All by tier
	picker     picker
}

// newPart makes a part of the peers of c: group g, or the whole pool, which has inflight.
func (s *Snapshot) newPart(o *Options, c peerSets, g *Group, inflight *atomic.Int64, now time.Time) Part {
	part := Part{Group: g, All: c.all}
	own := int64(0)
	if g != nil {
		inflight, own = &g.inflight, 1 // counted after the pick
	}
	tiers, shares := c.divide(o, s.Panic)
	pickers := make([]picker, len(tiers))
	for i, t := range tiers {
		t.eligible = o.Subset.of(t)
		candidates := make([]candidate, len(t.eligible))
		for j, p := range t.eligible {
			candidates[j] = candidate{peer: p, weight: p.condition.Load().weight()}
		}
		weigh(candidates, &o.SlowStart, now)
		pickers[i] = newPicker(o.Policy, &pickerInput{
			candidates: candidates, all: t.all, hashBound: o.HashBound, inflight: inflight, own: own, tables: &s.tables,
		})
		part.inTiers, part.allInTiers = append(part.inTiers, t.eligible), append(part.allInTiers, t.all)
		part.Tiers = append(part.Tiers, Tier{Peers: len(t.all), Eligible: len(t.eligible), Share: shares[i]})
	}
	part.Eligible = slices.Concat(part.inTiers...)
	slices.SortFunc(part.Eligible, comparePeers)
	for _, p := range part.Eligible {
		if p.condition.Load().onProbation() {
			part.lost++
		}
	}
	if !s.Panic && o.PanicThreshold > 0 {
		for _, p := range c.inPanic {
			if !p.condition.Load().eligible() {
				part.resort = append(part.resort, p)
			}
		}
	}
	part.picker = newTiered(pickers, shares, part.inTiers)
	if o.Policy == PolicySticky {
		part.picker = newSticky(part.Eligible, part.picker)
	}
	return part
}

// peerSets are the peers of a part, before its subset is chosen.
type peerSets struct {
	all     []*Peer
	healthy []*Peer // of all, in the same order
	inPanic []*Peer // of all, in the same order: the ones used in panic
}

func newPeerSets(all []*Peer) peerSets {
	c := peerSets{all: all}
	for _, p := range all {
		condition := p.condition.Load()
		if condition.eligible() {
			c.healthy = append(c.healthy, p)
		}
		if condition.usableInPanic() {
			c.inPanic = append(c.inPanic, p)
		}
	}
	return c
}

// byGroup divides c among n groups.
func (c *peerSets) byGroup(n int) []peerSets {
	groups := make([]peerSets, n)
	for _, p := range c.all {
		g := &groups[p.condition.Load().group]
		g.all = append(g.all, p)
	}
	for i := range groups {
		groups[i] = newPeerSets(groups[i].all)
	}
	return groups
}

// panics reports whether too few peers are healthy.
func (c *peerSets) panics(o *Options) bool {
	if float64(len(c.healthy)) >= o.PanicThreshold*float64(len(c.inPanic)) {
		return false
	}
	tiers := byTier(c.all, c.healthy, o.Tiers)
	if len(tiers) == 1 {
		return true
	}
	_, room := tierShares(tiers, o.Overprovisioning)
	return room < 1
}

// divide returns the peers that get requests, by tier, and the share of each tier.
func (c *peerSets) divide(o *Options, panicking bool) (tiers []tierPeers, shares []float64) {
	tiers = byTier(c.all, c.healthy, o.Tiers)
	shares, _ = tierShares(tiers, o.Overprovisioning)
	if !panicking {
		return tiers, shares
	}
	tiers = byTier(c.all, c.inPanic, o.Tiers)
	if len(c.healthy) == 0 {
		shares, _ = tierShares(tiers, o.Overprovisioning)
	} // else keep the shares of the healthy peers: failing ones draw no requests to their tier
	return tiers, shares
}

// maxLooks bounds the peers that a pick looks at one by one.
const maxLooks = 128

// own returns the peer of q.Own if it may get the request, or nil.
func (part *Part) own(q *Query) *Peer {
	if q.Own == nil || q.Tried.Has(q.Own) || q.full.has(q.Own) || !slices.Contains(part.Eligible, q.Own) {
		return nil
	}
	return q.Own
}

// acquireResort acquires a peer as of q.Resort, or returns nil.
func (part *Part) acquireResort(q *Query, limit int) *Peer {
	if !q.Resort || len(part.resort) == 0 {
		return nil
	}
	start := q.random.below(len(part.resort))
	for i := range min(len(part.resort), maxLooks) {
		p := part.resort[(start+i)%len(part.resort)]
		if !q.Tried.Has(p) && p.acquireQuiesced(limit) {
			return p
		}
	}
	return nil
}

// acquireOther acquires a peer in place of one at its limit: by the policy in a few
// tries, else the first below its limit among maxLooks. It returns nil if it finds
// none.
func (part *Part) acquireOther(q Query, limit int, now int64, cursor *atomic.Uint64) *Peer {
	without := q
	for range maxTried {
		p := part.picker.pick(without, now, cursor)
		if p == nil {
			break
		}
		if !q.Tried.Has(p) && p.acquire(limit) {
			return p
		}
		without.Tried.Add(p)
	}
	for _, peers := range part.inTiers {
		if len(peers) == 0 || q.full.has(peers[0]) {
			continue
		}
		start := q.random.below(len(peers))
		for i := range min(len(peers), maxLooks) {
			p := peers[(start+i)%len(peers)]
			if withoutCopies(p.load.Load()) < int64(limit) && !q.Tried.Has(p) && p.acquire(limit) {
				return p
			}
		}
	}
	return nil
}

// refusal returns the error of a pick that found no peer.
func (part *Part) refusal() error {
	switch {
	case len(part.Eligible) > 0: // a retired pool has no others
		return ErrAllTried
	case len(part.All) > 0:
		return ErrNoEligible
	}
	return ErrNoPeers
}
