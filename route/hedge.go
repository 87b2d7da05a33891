package route

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice/metrics"
)

// Hedge says when a request that only reads, and whose peer has not answered
// yet, is sent to a second peer as well; the first answer counts ("The Tail at
// Scale", Dean and Barroso, 2013). It is safe for concurrent use.
type Hedge struct {
	// After is how long the first peer is waited for. 0: as Percentile says.
	After time.Duration
	// Percentile, between 0 and 1, is the share of requests that are answered
	// within that time, by the latencies of the last ten seconds or more.
	Percentile float64

	delay   atomic.Int64 // nanoseconds, by Percentile; 0: not known yet
	renewal atomic.Int64 // when delay is to be computed anew, by the caller's clock

	mu sync.Mutex
	// mu guards the field below.
	before metrics.RequestsSnapshot // at the last renewal
}

// What a percentile is taken of.
const (
	hedgeRenewal     = 10 * time.Second
	hedgeMinRequests = 100
)

// Delay returns how long to wait before the second peer is asked; 0 means for
// ever. now is any clock in nanoseconds, the same for all calls. It costs two
// atomic loads but for once in ten seconds.
func (h *Hedge) Delay(now int64, requests *metrics.Requests) time.Duration {
	if h == nil {
		return 0
	}
	if h.After > 0 {
		return h.After
	}
	if renewal := h.renewal.Load(); now >= renewal && h.renewal.CompareAndSwap(renewal, now+int64(hedgeRenewal)) {
		h.renew(requests)
	}
	return time.Duration(h.delay.Load())
}

func (h *Hedge) renew(requests *metrics.Requests) {
	h.mu.Lock()
	defer h.mu.Unlock()
	latest := requests.Snapshot()
	window := latest
	for class := range window.Ended {
		for bucket := range window.Ended[class] {
			window.Ended[class][bucket] -= h.before.Ended[class][bucket]
		}
	}
	if window.Total() < hedgeMinRequests {
		return // too few to tell: what was known still holds
	}
	h.before = latest
	h.delay.Store(int64(window.Quantile(h.Percentile)))
}
