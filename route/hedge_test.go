package route

import (
	"testing"
	"time"

	"sluice/observe/metrics"
	"sluice/test/verify"
)

func TestHedgeDelay(t *testing.T) {
	requests := metrics.NewRequests()
	observe := func(n int, latency time.Duration) {
		for range n {
			requests.Observe(0, 200, latency, 0, 0)
		}
	}
	var none *Hedge
	verify.Equal(t, none.Delay(0, requests), 0, "no hedge")
	fixed := NewHedge(Hedging{After: time.Second})
	verify.Equal(t, fixed.Delay(0, requests), time.Second, "fixed")

	h := NewHedge(Hedging{Percentile: 0.9})
	second := int64(time.Second)
	observe(50, time.Millisecond)
	verify.Equal(t, h.Delay(1*second, requests), 0, "too few requests")
	observe(1000, time.Millisecond)
	observe(50, time.Second)
	verify.Equal(t, h.Delay(5*second, requests), 0, "before the renewal")
	early := h.Delay(20*second, requests)
	verify.That(t, early >= time.Millisecond/2 && early <= 5*time.Millisecond, "mostly 1 ms: %v", early)
	// Only what came since counts, and no tunnel.
	observe(1000, 100*time.Millisecond)
	for range 1000 {
		requests.Observe(0, 101, time.Hour, 0, 0)
	}
	verify.Equal(t, h.Delay(21*second, requests), early, "before the renewal")
	late := h.Delay(31*second, requests)
	verify.That(t, late >= 50*time.Millisecond && late <= 250*time.Millisecond, "then 100 ms: %v", late)
	verify.Equal(t, h.Delay(60*second, requests), late, "nothing new")
}
