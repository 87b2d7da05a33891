package judge

import (
	"math"
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
	rank := int(math.Ceil(q*float64(n))) - 1
	return time.Duration(ranked(latencies, min(max(rank, 0), len(latencies)-1)))
}

// ranked returns the value at index rank of the sorted values, and changes their order. It is
// Hoare's selection, which takes a fraction of the time of sorting.
func ranked(values []int64, rank int) int64 {
	for len(values) > 1 {
		pivot := values[len(values)/2]
		low, high := 0, len(values)-1
		for low <= high { // until no value before low is greater than the pivot, and none after high is less
			for values[low] < pivot {
				low++
			}
			for values[high] > pivot {
				high--
			}
			if low <= high {
				values[low], values[high] = values[high], values[low]
				low++
				high--
			}
		}
		switch {
		case rank <= high:
			values = values[:high+1]
		case rank >= low:
			values, rank = values[low:], rank-low
		default:
			return pivot
		}
	}
	return values[0]
}
