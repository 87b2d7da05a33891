package route

import (
	"testing"
	"time"

	"sluice/observe/metrics"
)

func TestHedgeDelay(t *testing.T) {
	requests := metrics.NewRequests()
	observe := func(n int, latency time.Duration) {
		for range n {
			requests.Observe(0, 200, latency, 0, 0)
		}
	}
	var none *Hedge
	if d := none.Delay(0, requests); d != 0 {
		t.Errorf("no hedge: %v", d)
	}
	fixed := &Hedge{After: time.Second}
	if d := fixed.Delay(0, requests); d != time.Second {
		t.Errorf("fixed: %v", d)
	}

	h := &Hedge{Percentile: 0.9}
	second := int64(time.Second)
	observe(50, time.Millisecond)
	if d := h.Delay(1*second, requests); d != 0 {
		t.Errorf("too few requests: %v, want no hedging", d)
	}
	observe(1000, time.Millisecond)
	observe(50, time.Second)
	if d := h.Delay(5*second, requests); d != 0 {
		t.Errorf("before the renewal: %v", d)
	}
	early := h.Delay(20*second, requests)
	if early < time.Millisecond/2 || early > 5*time.Millisecond {
		t.Errorf("mostly 1 ms: %v", early)
	}
	// Only what came since counts.
	observe(1000, 100*time.Millisecond)
	if d := h.Delay(21*second, requests); d != early {
		t.Errorf("before the renewal: %v, want %v", d, early)
	}
	late := h.Delay(31*second, requests)
	if late < 50*time.Millisecond || late > 250*time.Millisecond {
		t.Errorf("then 100 ms: %v", late)
	}
	if d := h.Delay(60*second, requests); d != late {
		t.Errorf("nothing new: %v, want %v", d, late)
	}
}
