package balancer

import (
	"maps"
	"slices"
	"sync/atomic"
)

// Policy names a way to choose among the eligible peers. All policies respect weights.
type Policy string

const (
	// PolicyEWMA takes the best of a few random peers by latency and requests in
	// flight. It avoids a slow or stuck peer.
	PolicyEWMA Policy = "ewma"
	// PolicyHash sends requests with the same Query.Hash to one peer, within
	// Options.HashBound.
	PolicyHash Policy = "hash"
	// PolicyLeastConn takes the peer with the fewest requests in flight, in a large
	// pool the better of two random ones.
	PolicyLeastConn Policy = "least_conn"
	// PolicyRandom draws a peer at random.
	PolicyRandom Policy = "random"
	// PolicyRoundRobin uses the peers in turn.
	PolicyRoundRobin Policy = "round_robin"
	// PolicySticky takes the peer whose StickyID is Query.Hash, or the choice of
	// PolicyEWMA if that peer is gone, not eligible or tried.
	PolicySticky Policy = "sticky"
)

var pickers = map[Policy]func(*pickerInput) picker{
	PolicyEWMA:       newEWMA,
	PolicyHash:       newHashed,
	PolicyLeastConn:  newLeastConn,
	PolicyRandom:     newRandom,
	PolicyRoundRobin: newRoundRobin,
	PolicySticky:     newEWMA, // requests without a session; see newSticky
}

// Policies returns every policy, sorted by name.
func Policies() []Policy { return slices.Sorted(maps.Keys(pickers)) }

// picker chooses one of its candidates. It is immutable, knows nothing of health, and
// is safe for concurrent use.
type picker interface {
	// pick returns a candidate that is not in q.Tried, or nil. It takes no lock and
	// allocates nothing: a pointer to q would escape. now is by nanotime; cursor
	// belongs to the pool and outlives the picker.
	pick(q Query, now int64, cursor *atomic.Uint64) *Peer
}

// candidate is an eligible peer with its weight in the snapshot, above 0.
type candidate struct {
	peer   *Peer
	weight int
	factor float64 // of weight, by slow start and the peer's factors: 1 without any
	// burden is the load of one request: the average weight divided by the peer's.
	burden float64
}

// load returns the requests in flight relative to the weight. It is very large for a
// peer that was quiesced after the snapshot.
func (c *candidate) load() float64 { return float64(c.peer.load.inflight()) * c.burden }

// pickerInput is what a picker is made of.
type pickerInput struct {
	candidates []candidate // sorted as Snapshot.All

	// For PolicyHash.

	all       []*Peer // candidates and peers that are not eligible, sorted
	hashBound float64
	inflight  *atomic.Int64 // attempts in flight to the whole pool or group
	own       int64         // 1 if inflight does not include the request to pick for
	tables    *maglevs
}

func newPicker(policy Policy, l *pickerInput) picker {
	if len(l.candidates) == 0 {
		return emptyPicker{}
	}
	average := totalWeight(l.candidates) / float64(len(l.candidates))
	for i := range l.candidates {
		l.candidates[i].burden = average / float64(l.candidates[i].weight)
	}
	return pickers[policy](l)
}

// emptyPicker has no candidates.
type emptyPicker struct{}

func (emptyPicker) pick(Query, int64, *atomic.Uint64) *Peer { return nil }

func totalWeight(candidates []candidate) float64 {
	var sum float64
	for _, c := range candidates {
		sum += float64(c.weight)
	}
	return sum
}

func equalWeights(candidates []candidate) bool {
	return !slices.ContainsFunc(candidates, func(c candidate) bool { return c.weight != candidates[0].weight })
}

// untried returns the first candidate from start on, cyclically, that is not in tried,
// or nil.
func untried(candidates []candidate, start int, tried *TriedSet) *candidate {
	for i := range min(len(candidates), tried.Len()+1) {
		if c := &candidates[(start+i)%len(candidates)]; !tried.Has(c.peer) {
			return c
		}
	}
	return nil
}
