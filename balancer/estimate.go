package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

// estimate is a moving average of a latency.
type estimate struct {
	value atomic.Uint64 // nanoseconds as a float64; 0: none yet
	stamp atomic.Int64  // when value was last brought up to date; see nanotime
}

func (e *estimate) average() time.Duration {
	return time.Duration(math.Float64frombits(e.value.Load()))
}

// epoch is where nanotime counts from.
var epoch = time.Now()

// nanotime reads the monotonic clock.
func nanotime() int64 { return int64(time.Since(epoch)) }
