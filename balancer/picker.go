package balancer

import (
	"maps"
	"slices"
	"sync/atomic"
)

// Policy names a way to choose among the eligible peers of a pool. All of
// them respect weights.
type Policy string

const (
	// PolicyEWMA takes the better of two peers drawn at random: the one with
	// fewer requests in flight and, as a moving average, a lower latency. It
	// avoids a slow or stuck peer by itself.
	PolicyEWMA Policy = "ewma"
	// PolicyHash keeps requests with the same Query.Hash on one peer, within a
	// bound on its load; see Options.HashBound.
	PolicyHash Policy = "hash"
	// PolicyLeastConn takes the peer with the fewest requests in flight, or in a
	// large pool the better of two drawn at random.
	PolicyLeastConn Policy = "least_conn"
	// PolicyRandom draws a peer at random.
	PolicyRandom Policy = "random"
	// PolicyRoundRobin takes turns, evenly spread.
	PolicyRoundRobin Policy = "round_robin"
	// PolicySticky takes the peer whose StickyID is the Query.Hash. Where there is
	// no such peer, or it is not eligible or was tried, it does as PolicyEWMA.
	PolicySticky Policy = "sticky"
)

var pickers = map[Policy]func(*lineup) picker{
	PolicyEWMA:       newEWMA,
	PolicyHash:       newHashed,
	PolicyLeastConn:  newLeastConn,
	PolicyRandom:     newRandom,
	PolicyRoundRobin: newRoundRobin,
	PolicySticky:     newEWMA, // for requests that name no peer; see newSticky
}

// Policies returns every policy, sorted by name.
func Policies() []Policy { return slices.Sorted(maps.Keys(pickers)) }

// picker chooses one of the candidates it was made of. It is immutable, knows
// nothing of health, and is safe for concurrent use.
type picker interface {
	// pick returns a candidate that is not in q.Tried, or nil if there is none.
	// It takes no lock and allocates nothing: q is a value because a pointer
	// would escape through the interface. now is the time by nanotime; cursor
	// belongs to the pool and outlives the picker.
	pick(q Query, now int64, cursor *atomic.Uint64) *Peer
}

// candidate is an eligible peer with its weight at the time of the snapshot,
// which is above 0.
type candidate struct {
	peer   *Peer
	weight int
	warmth float64 // factor that slow start has left of weight: 1 for a peer that is warm
	// burden is what one request in flight is to the peer, compared with the
	// others: the average weight divided by its own.
	burden float64
}

// load returns the peer's requests in flight in relation to its weight. For a
// peer that was taken out of the pool just now it is enormous.
func (c *candidate) load() float64 { return float64(c.peer.load.Load()) * c.burden }

// lineup is what a picker is made of.
type lineup struct {
	candidates []candidate // sorted as Snapshot.All

	// For PolicyHash.

	all       []*Peer // those of candidates and those that are not eligible, sorted
	hashBound float64
	inflight  *atomic.Int64 // attempts in flight to the whole pool
	tables    *maglevs
}

// newPicker returns a picker for l, whose candidates may be few or none.
func newPicker(policy Policy, l *lineup) picker {
	if len(l.candidates) == 0 {
		return nobody{}
	}
	average := totalWeight(l.candidates) / float64(len(l.candidates))
	for i := range l.candidates {
		l.candidates[i].burden = average / float64(l.candidates[i].weight)
	}
	return pickers[policy](l)
}

// nobody picks none of no candidates.
type nobody struct{}

func (nobody) pick(Query, int64, *atomic.Uint64) *Peer { return nil }

func totalWeight(candidates []candidate) float64 {
	var sum float64
	for _, c := range candidates {
		sum += float64(c.weight)
	}
	return sum
}

func equalWeights(candidates []candidate) bool {
	for _, c := range candidates {
		if c.weight != candidates[0].weight {
			return false
		}
	}
	return true
}

// untried returns the first candidate from start on, around the end, that is
// not in tried, or nil. It looks at no more than one candidate more than tried
// holds.
func untried(candidates []candidate, start int, tried *TriedSet) *candidate {
	for i := range min(len(candidates), tried.Len()+1) {
		if c := &candidates[(start+i)%len(candidates)]; !tried.Has(c.peer) {
			return c
		}
	}
	return nil
}
