package balancer

import (
	"slices"
	"sync/atomic"

	"sluice/discovery"
)

// Selector selects the instances of a tier or of a group: the ones that meet every condition. The
// keys are for groups.
type Selector struct {
	Tags  []string          `key:"tags"`               // all of these
	Meta  map[string]string `key:"meta" format:"text"` // all of these
	Nodes []string          `key:"-"`                  // one of these
}

func (s *Selector) selects(i *discovery.Instance) bool {
	for _, tag := range s.Tags {
		if !slices.Contains(i.Tags, tag) {
			return false
		}
	}
	for key, value := range s.Meta {
		if got, known := i.Meta[key]; !known || got != value {
			return false
		}
	}
	return len(s.Nodes) == 0 || slices.Contains(s.Nodes, i.Node)
}

// Tier is one of the tiers of a snapshot.
type Tier struct {
	Peers    int     `json:"peers"`    // in the set
	Eligible int     `json:"eligible"` // of them
	Share    float64 `json:"share"`    // of the requests, 0 to 1
}

// tierOf returns the number of i's tier. The last is for instances that no selector
// selects.
func tierOf(i *discovery.Instance, tiers []Selector) int {
	for n := range tiers {
		if tiers[n].selects(i) {
			return n
		}
	}
	return len(tiers)
}

// tiered sends requests to the first tier up to its share, the rest to the next. What finds no room
// in its tier goes to the first one that has some.
type tiered struct {
	tiers      []picker
	until      []uint64 // tier i gets numbers from until[i-1] to below until[i]
	firstPeers []*Peer  // of each tier
}

// tierShares divides the requests among tiers, and returns the room of all tiers as a
// multiple of the requests: Envoy's priority levels. A tier has room for all requests
// while the eligible part of its capacity times overprovisioning is at least 1. If all
// tiers together have too little room, they share the requests in proportion.
func tierShares(tiers []tierPeers, overprovisioning float64) (shares []float64, room float64) {
	shares = make([]float64, len(tiers))
	for i := range tiers {
		shares[i] = min(1, tiers[i].left()*overprovisioning)
		room += shares[i]
	}
	if room == 0 {
		return shares, 0
	}
	rest := 1.
	for i := range shares {
		shares[i] = min(rest, shares[i]/min(1, room))
		rest -= shares[i]
	}
	return shares, room
}

// newTiered returns a picker for tiers with these shares and peers, or the only one with
// candidates.
func newTiered(tiers []picker, shares []float64, peers [][]*Peer) picker {
	t := &tiered{}
	sum := 0.
	for i, p := range tiers {
		if _, empty := p.(emptyPicker); empty {
			continue
		}
		sum += shares[i]
		t.tiers = append(t.tiers, p)
		t.firstPeers = append(t.firstPeers, peers[i][0])
		t.until = append(t.until, uint64(min(sum, 1)*(1<<63)))
	}
	switch len(t.tiers) {
	case 0:
		return emptyPicker{}
	case 1:
		return t.tiers[0]
	}
	return t
}

// tierSalt makes the choice of the tier independent of the choice within it.
const tierSalt = 0x9e3779b97f4a7c15

func (t *tiered) pick(q Query, now int64, cursor *atomic.Uint64) *Peer {
	first := 0
	if t.until[0] < 1<<63 {
		number := q.Hash // the same hash gets the same tier
		if number == 0 {
			number = q.random.uint64()
		}
		number = mix(number^tierSalt) >> 1
		for first < len(t.tiers)-1 && number >= t.until[first] {
			first++
		}
	}
	if !q.full.has(t.firstPeers[first]) {
		if p := t.tiers[first].pick(q, now, cursor); p != nil {
			return p
		}
	}
	for i, tier := range t.tiers { // that tier is full, or all of its peers were tried
		if i == first || q.full.has(t.firstPeers[i]) {
			continue
		}
		if p := tier.pick(q, now, cursor); p != nil {
			return p
		}
	}
	return nil
}

// tierPeers are the peers of a tier.
type tierPeers struct {
	all      []*Peer
	eligible []*Peer // of all, in the same order
}

// byTier divides peers among the tiers of selectors, and one more. A tier whose instances have
// different priorities is divided further, the smallest priority first.
func byTier(all, eligible []*Peer, selectors []Selector) []tierPeers {
	priorities := make([][]int, len(selectors)+1) // by tier, sorted
	place := make([]int, len(all))                // tier of a peer
	for n, p := range all {
		i := p.condition.Load().instance
		tier := tierOf(&i, selectors)
		place[n] = tier
		if at, known := slices.BinarySearch(priorities[tier], i.Priority); !known {
			priorities[tier] = slices.Insert(priorities[tier], at, i.Priority)
		}
	}
	first, count := make([]int, len(priorities)), 0 // of a tier's parts
	for tier := range priorities {
		first[tier] = count
		count += max(1, len(priorities[tier]))
	}
	tiers := make([]tierPeers, count)
	for n, p := range all {
		at, _ := slices.BinarySearch(priorities[place[n]], p.condition.Load().instance.Priority)
		t := &tiers[first[place[n]]+at]
		t.all = append(t.all, p)
		if len(eligible) > 0 && eligible[0] == p {
			t.eligible = append(t.eligible, p)
			eligible = eligible[1:]
		}
	}
	return tiers
}

// left returns the eligible part of the tier's capacity.
func (t *tierPeers) left() float64 {
	if len(t.all) == 0 {
		return 0
	}
	sum := func(peers []*Peer) (n float64) {
		for _, p := range peers {
			n += float64(p.condition.Load().usualWeight())
		}
		return n
	}
	return sum(t.eligible) / sum(t.all)
}
