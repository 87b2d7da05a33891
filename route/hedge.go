package route

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice/config/units"
	"sluice/observe/metrics"
)

// Hedging says after what delay a read-only request without an answer goes to a second peer as
// well: the first answer wins ("The Tail at Scale", Dean and Barroso, 2013). The zero value is
// never.
type Hedging struct {
	// After is the delay. 0: use Percentile.
	After time.Duration `key:"after" default:"0s" min:"0s" max:"1h"`
	// Percentile sets the delay to this percentile of the latencies of at least the last ten
	// seconds.
	Percentile units.Ratio `key:"percentile" default:"0" min:"0" max:"1"`
}

// Hedge is the hedging of a service. It is safe for concurrent use.
type Hedge struct {
	Hedging

	delay   atomic.Int64 // nanoseconds, by Percentile; 0: unknown
	renewal atomic.Int64 // time of the next computation, by the caller's clock

	mu sync.Mutex
	// mu guards the field below.
	before metrics.RequestsSnapshot // at the last renewal
}

// NewHedge returns the hedging with these settings; nil: none.
func NewHedge(h Hedging) *Hedge {
	if h == (Hedging{}) {
		return nil
	}
	return &Hedge{Hedging: h}
}

// Minimum time and number of requests for a percentile.
const (
	hedgeRenewal     = 10 * time.Second
	hedgeMinRequests = 100
)

// Delay returns the delay before the second attempt; 0 means no hedging. now is any
// clock in nanoseconds, the same for all calls. It costs two atomic loads.
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
	clear(window.Ended[metrics.Class1xx][:]) // the times of tunnels, not of answers
	if window.Total() < hedgeMinRequests {
		return // too few: the old delay stays
	}
	h.before = latest
	h.delay.Store(int64(window.Quantile(float64(h.Percentile))))
}
