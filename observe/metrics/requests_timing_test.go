package metrics

import (
	"testing"
	"time"
)

func BenchmarkObserve(b *testing.B) {
	r := NewRequests()
	b.ReportAllocs()
	for b.Loop() {
		r.Observe(1, 200, 1234*time.Microsecond, 0, 612)
	}
}
