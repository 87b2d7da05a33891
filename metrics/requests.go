package metrics

import (
	"runtime"
	"sync/atomic"
	"time"
)

// maxShards bounds the memory of a service's counters: 64 KiB.
const maxShards = 64

// Requests counts the requests of one service. It is safe for concurrent use;
// counting takes no lock and allocates nothing.
type Requests struct {
	shards []shard // length: a power of two
	mask   uint32  // len(shards) - 1
}

// shardSize is the size of a shard in bytes. As a power of two it is a size of
// the allocator's, so that an array of shards starts on a cache line.
const shardSize = 1024

// shard is one copy of all the counters. No two shards share a cache line.
type shard struct {
	// ended counts by class and latency bucket at once: one addition serves
	// both the requests and the histogram.
	ended     [NumClasses][NumBuckets]atomic.Uint64
	latencyNs atomic.Int64
	bytesIn   atomic.Int64
	bytesOut  atomic.Int64
	retries   atomic.Uint64
	_         [shardSize - (NumClasses*NumBuckets+4)*8]byte
}

// NewRequests returns counters at zero, with at least as many shards as there
// are processors to run on now, at most 64.
func NewRequests() *Requests {
	n := 1
	for n < runtime.GOMAXPROCS(0) && n < maxShards {
		n *= 2
	}
	return &Requests{shards: make([]shard, n), mask: uint32(n - 1)}
}

// Observe counts one request that ended: with this final status (see
// [ClassOf]), this long after it arrived, with so many bytes of body received
// from and sent to the client. A negative latency counts as 0.
//
// shard is any number; requests that run at the same time had better pass
// different ones.
func (r *Requests) Observe(shard uint32, status int, latency time.Duration, bytesIn, bytesOut int64) {
	s := &r.shards[shard&r.mask]
	ns := max(int64(latency), 0)
	s.ended[ClassOf(status)][bucketOf(ns)].Add(1)
	s.latencyNs.Add(ns)
	if bytesIn != 0 {
		s.bytesIn.Add(bytesIn)
	}
	if bytesOut != 0 {
		s.bytesOut.Add(bytesOut)
	}
}

// Retry counts one attempt beyond a request's first.
func (r *Requests) Retry(shard uint32) {
	r.shards[shard&r.mask].retries.Add(1)
}

// Snapshot sums the shards. Requests that end meanwhile may be counted in one
// field and not yet in another; every field by itself never goes back.
func (r *Requests) Snapshot() RequestsSnapshot {
	var sum RequestsSnapshot
	for i := range r.shards {
		s := &r.shards[i]
		for c := range s.ended {
			for b := range s.ended[c] {
				sum.Ended[c][b] += s.ended[c][b].Load()
			}
		}
		sum.Latency += time.Duration(s.latencyNs.Load())
		sum.BytesIn += s.bytesIn.Load()
		sum.BytesOut += s.bytesOut.Load()
		sum.Retries += s.retries.Load()
	}
	return sum
}

// RequestsSnapshot is what [Requests] had counted at one time. It is a value.
type RequestsSnapshot struct {
	// Ended is the number of requests that ended, by [Class] and by latency
	// bucket. A bucket counts the latencies above the bound before its own up to
	// its own, inclusive: they are not cumulative. See [BucketBounds].
	Ended [NumClasses][NumBuckets]uint64
	// Latency is the sum over all requests that ended.
	Latency time.Duration
	// BytesIn and BytesOut are bytes of bodies, as received from and sent to
	// clients.
	BytesIn, BytesOut int64
	// Retries is the number of attempts beyond the first of each request.
	Retries uint64
}

// Total returns the number of requests that ended.
func (s *RequestsSnapshot) Total() uint64 {
	var n uint64
	for c := range s.Ended {
		n += s.Class(Class(c))
	}
	return n
}

// Class returns the number of requests that ended in class c.
func (s *RequestsSnapshot) Class(c Class) uint64 {
	var n uint64
	for _, count := range s.Ended[c] {
		n += count
	}
	return n
}

// Buckets returns the number of requests per latency bucket, of all classes,
// not cumulative.
func (s *RequestsSnapshot) Buckets() [NumBuckets]uint64 {
	var sum [NumBuckets]uint64
	for c := range s.Ended {
		for b, count := range s.Ended[c] {
			sum[b] += count
		}
	}
	return sum
}

// Quantile returns an estimate of the latency that the share q (0 to 1) of the
// requests did not exceed, interpolated within its bucket as Prometheus'
// histogram_quantile does. It returns 0 when nothing was counted and 60 s, the
// last bound, for latencies beyond it.
func (s *RequestsSnapshot) Quantile(q float64) time.Duration {
	buckets := s.Buckets()
	rank := min(max(q, 0), 1) * float64(s.Total())
	var below float64
	var lower int64
	for b, count := range buckets[:NumBuckets-1] {
		if n := float64(count); n > 0 && below+n >= rank {
			return time.Duration(float64(lower) + float64(bounds[b]-lower)*(rank-below)/n)
		} else {
			below += n
		}
		lower = bounds[b]
	}
	if s.Total() == 0 {
		return 0
	}
	return time.Duration(lower)
}
