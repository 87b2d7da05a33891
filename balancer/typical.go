package balancer

import (
	"sync/atomic"
	"time"
)

// Typical is a running median of latencies: each moves it by a fiftieth up or down. The zero value knows none. It is safe
// for concurrent use without a lock; a latency may be lost.
type Typical struct {
	nanoseconds atomic.Int64
}

// Median returns the median, 0 before the first latency.
func (t *Typical) Median() time.Duration { return time.Duration(t.nanoseconds.Load()) }

// Observe adds a latency. One that hardly differs writes nothing: others read it at the same time.
func (t *Typical) Observe(latency time.Duration) {
	median := t.nanoseconds.Load()
	by := median/50 + 1
	switch {
	case median == 0:
		t.nanoseconds.Store(int64(latency))
	case int64(latency) > median+by:
		t.nanoseconds.Store(median + by)
	case int64(latency) < median-by:
		t.nanoseconds.Store(median - by)
	}
}
