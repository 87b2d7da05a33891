package metrics

import (
	"sync/atomic"
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

// BenchmarkObserveParallel gives each goroutine a shard of its own, as
// connections have. BenchmarkObserveOneShard shows what that saves.
func BenchmarkObserveParallel(b *testing.B) {
	r := NewRequests()
	var connections atomic.Uint32
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		shard := connections.Add(1)
		for pb.Next() {
			r.Observe(shard, 200, 1234*time.Microsecond, 0, 612)
		}
	})
}

func BenchmarkObserveOneShard(b *testing.B) {
	r := NewRequests()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Observe(0, 200, 1234*time.Microsecond, 0, 612)
		}
	})
}

func BenchmarkSnapshot(b *testing.B) {
	r := NewRequests()
	for b.Loop() {
		r.Snapshot()
	}
}
