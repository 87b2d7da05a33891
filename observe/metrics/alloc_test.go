//go:build !race

package metrics

import (
	"testing"
	"time"
)

func TestObserveDoesNotAllocate(t *testing.T) {
	r := NewRequests()
	if n := testing.AllocsPerRun(1000, func() {
		r.Observe(3, 200, time.Millisecond, 1, 2)
		r.Retry(3)
		r.ObserveResponse(3, 200, "")
		r.ObserveResponse(3, 502, "connect_failed")
	}); n != 0 {
		t.Errorf("%v allocations per request, want 0", n)
	}
}
