package judge

import (
	"math"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// keepRecent is how many latencies a Recent has.
	keepRecent = 512
	// minRecent is how many a quantile needs.
	minRecent = 100
)

// Recent has the latencies of the last 512 attempts of an arm. The zero value is empty. Its methods
// may be called concurrently; Add takes no lock and allocates nothing.
type Recent struct {
	added     atomic.Uint64
	latencies [keepRecent]atomic.Int64 // in nanoseconds
}

// Add adds a latency.
func (r *Recent) Add(latency time.Duration) {
	r.latencies[(r.added.Add(1)-1)%keepRecent].Store(int64(latency))
}

// Reset removes all latencies, except latencies that are added meanwhile.
func (r *Recent) Reset() { r.added.Store(0) }

// Quantile returns the latency that the share q, from 0 to 1, of the attempts did not exceed; 0:
// there are fewer than 100.
func (r *Recent) Quantile(q float64) time.Duration {
	n := min(r.added.Load(), keepRecent)
	if n < minRecent {
		return 0
	}
	latencies := make([]int64, n)
	for i := range latencies {
		latencies[i] = r.latencies[i].Load()
	}
	slices.Sort(latencies)
	rank := int(math.Ceil(q*float64(n))) - 1
	return time.Duration(latencies[min(max(rank, 0), len(latencies)-1)])
}
