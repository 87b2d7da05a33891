package balancer

import (
	"maps"
	"slices"
	"sync/atomic"
)

// Policy names a way to choose among the eligible peers of a pool. All of
// them respect weights.
type Policy string

// The policies.
const (
	PolicyRoundRobin Policy = "round_robin"
	PolicyLeastConn  Policy = "least_conn"
	PolicyEWMA       Policy = "ewma"
	PolicyRandom     Policy = "random"
)

// Policies returns every policy, sorted by name.
func Policies() []Policy { return slices.Sorted(maps.Keys(pickers)) }

// picker chooses one of the candidates it was made of. It is immutable, knows
// nothing of health, and is safe for concurrent use.
type picker interface {
	// pick returns a candidate that is not in q.Tried, or nil if there is none.
	// It takes no lock and allocates nothing. now is the time by nanotime;
	// cursor belongs to the pool and outlives the picker.
	pick(q Query, now int64, cursor *atomic.Uint64) *Peer
}

// candidate is an eligible peer with its weight at the time of the snapshot,
// which is above 0.
type candidate struct {
	peer   *Peer
	weight int
}

var pickers = map[Policy]func([]candidate) picker{
	PolicyRoundRobin: newRoundRobin,
	PolicyLeastConn:  newRoundRobin,
	PolicyEWMA:       newRoundRobin,
	PolicyRandom:     newRoundRobin,
}

// newPicker returns a picker for candidates, which may be few or none.
func newPicker(policy Policy, candidates []candidate) picker {
	if len(candidates) == 0 {
		return nobody{}
	}
	return pickers[policy](candidates)
}

// nobody picks none of no candidates.
type nobody struct{}

func (nobody) pick(Query, int64, *atomic.Uint64) *Peer { return nil }
