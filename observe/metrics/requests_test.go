package metrics

import (
	"math"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"sluice/test/verify"
)

func TestObserveCountsEachRequestOnce(t *testing.T) {
	r := NewRequests()
	for _, o := range []struct {
		shard   uint32
		status  int
		latency time.Duration
		in, out int64
	}{
		{0, 200, 300 * time.Microsecond, 0, 10},
		{1, 204, time.Millisecond, 5, 0},
		{2, 404, time.Second, 0, 1},
		{math.MaxUint32, 503, time.Hour, 0, 2},
		{7, StatusClientClosedRequest, -time.Second, 0, 0},
	} {
		r.Observe(o.shard, o.status, o.latency, o.in, o.out)
	}
	r.Retry(0)
	r.Retry(12345)
	r.ObserveGRPC(0, 0)
	r.ObserveGRPC(1, 16)
	r.ObserveGRPC(math.MaxUint32, 17)
	r.ObserveGRPC(0, -1)

	s := r.Snapshot()
	verify.Equal(t, s.Total(), 5, "total")
	for class, want := range map[Class]uint64{Class1xx: 0, Class2xx: 2, Class3xx: 0, Class4xx: 1, Class5xx: 1, ClassAborted: 1} {
		verify.Equal(t, s.Class(class), want, "class %v", class)
	}
	var want [NumBuckets]uint64
	want[0], want[2], want[3], want[12], want[NumBuckets-1] = 1, 1, 1, 1, 1
	verify.Equal(t, s.Buckets(), want, "buckets")
	verify.Equal(t, s.Latency, 300*time.Microsecond+time.Millisecond+time.Second+time.Hour, "latency")
	verify.That(t, s.BytesIn == 5 && s.BytesOut == 13 && s.Retries == 2, "in %d, out %d, retries %d; want 5, 13, 2", s.BytesIn, s.BytesOut, s.Retries)
	verify.Equal(t, s.GRPC, [NumGRPCCodes]uint64{0: 1, 2: 2, 16: 1}, "gRPC")
}

func TestClassOf(t *testing.T) {
	for status, want := range map[int]Class{
		100: Class1xx, 199: Class1xx, 200: Class2xx, 299: Class2xx, 304: Class3xx, 400: Class4xx,
		498: Class4xx, 499: ClassAborted, 500: Class5xx, 599: Class5xx, 600: Class5xx, 999: Class5xx,
		1000: ClassAborted, 99: ClassAborted, 0: ClassAborted, -1: ClassAborted, math.MinInt: ClassAborted,
	} {
		verify.Equal(t, ClassOf(status), want, "ClassOf(%d)", status)
	}
}

// slowBucketOf is what bucketOf must agree with.
func slowBucketOf(ns int64) int {
	for i, bound := range bounds {
		if ns <= bound {
			return i
		}
	}
	panic("unreachable")
}

func TestBucketsHoldTheirUpperBound(t *testing.T) {
	for i, bound := range bounds {
		for _, ns := range []int64{bound - 1, bound, bound + 1} {
			if ns < 0 {
				continue // past the end of int64
			}
			verify.Equal(t, bucketOf(ns), slowBucketOf(ns), "bound %d: bucketOf(%d)", i, ns)
		}
	}
	for i := 1; i < len(bounds); i++ {
		verify.That(t, bounds[i]/2 >= bounds[i-1], "bound %d is less than twice the one before", i)
	}
}

func FuzzBucketOf(f *testing.F) {
	f.Add(int64(0))
	f.Add(int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, ns int64) {
		ns &= math.MaxInt64
		verify.Equal(t, bucketOf(ns), slowBucketOf(ns), "bucketOf(%d)", ns)
	})
}

func TestQuantile(t *testing.T) {
	f := func(q float64, want time.Duration, latencies ...time.Duration) {
		t.Helper()
		r := NewRequests()
		for i, l := range latencies {
			r.Observe(uint32(i), 200, l, 0, 0)
		}
		s := r.Snapshot()
		verify.Equal(t, s.Quantile(q), want, "quantile %v of %v", q, latencies)
	}
	const ms = time.Millisecond
	f(0.5, 0)
	f(1, 5*ms, 3*ms)
	f(0.5, 3750*time.Microsecond, 3*ms)
	f(0.5, 5*ms, 4*ms, 40*ms)
	f(0.99, 60*time.Second, 4*ms, 2*time.Hour)
	f(7, 60*time.Second, time.Hour)
}

func TestShardsShareNoCacheLine(t *testing.T) {
	verify.Equal(t, unsafe.Sizeof(shard{}), shardSize, "a shard has bytes")
	r := NewRequests()
	addr := uintptr(unsafe.Pointer(&r.shards[0]))
	verify.That(t, addr%128 == 0, "first shard at %#x, which is not the start of a pair of cache lines", addr)
}

func TestShardsFollowTheProcessors(t *testing.T) {
	for procs, want := range map[int]int{1: 1, 2: 2, 3: 4, 8: 8, 100: 64} {
		prev := runtime.GOMAXPROCS(procs)
		got := len(NewRequests().shards)
		runtime.GOMAXPROCS(prev)
		verify.Equal(t, got, want, "%d processors: shards", procs)
	}
}

// No count is lost, and a reader never sees one go back.
func TestConcurrentObservers(t *testing.T) {
	const observers, each = 8, 5000
	r := NewRequests()
	var wg sync.WaitGroup
	for i := range observers {
		wg.Go(func() {
			for n := range each {
				r.Observe(uint32(i), 200+100*(n%4), time.Duration(n)*time.Microsecond, 1, 2)
				r.Retry(uint32(i))
				r.ObserveResponse(uint32(i), 200+n%50, "")
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var last RequestsSnapshot
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		s := r.Snapshot()
		verify.Require(t, s.Total() >= last.Total() && s.Latency >= last.Latency && s.Retries >= last.Retries, "a counter went back: %+v after %+v", s, last)
		last = s
	}
	const total = observers * each
	if last.Total() != total || last.Retries != total || last.BytesIn != total || last.BytesOut != 2*total {
		t.Errorf("total %d, retries %d, in %d, out %d; want %d each, out twice that",
			last.Total(), last.Retries, last.BytesIn, last.BytesOut, total)
	}
	responses := uint64(0)
	for _, response := range r.Responses() {
		responses += response.Count
	}
	verify.Equal(t, responses, total, "responses")
}

func BenchmarkObserve(b *testing.B) {
	r := NewRequests()
	b.ReportAllocs()
	for b.Loop() {
		r.Observe(1, 200, 1234*time.Microsecond, 0, 612)
	}
}
