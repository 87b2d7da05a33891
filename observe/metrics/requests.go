package metrics

import (
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
)

// maxShards bounds the memory of a service's counters: 64 KiB.
const maxShards = 64

// Requests counts the requests of one service. It is safe for concurrent use.
type Requests struct {
	shards []shard     // length: a power of two
	grpc   []grpcShard // as many
	mask   uint32      // len(shards) - 1

	responses responses
}

// shardSize is the size of a shard: a power of two, so that the allocator aligns the
// array to cache lines.
const shardSize = 1024

// shard is one copy of the counters.
type shard struct {
	// ended serves the number of requests and the histogram.
	ended     [NumClasses][NumBuckets]atomic.Uint64
	latencyNs atomic.Int64
	bytesIn   atomic.Int64
	bytesOut  atomic.Int64
	retries   atomic.Uint64
	_         [shardSize - (NumClasses*NumBuckets+4)*8]byte
}

// NewRequests returns zero counters, with a shard for each processor, at most 64.
func NewRequests() *Requests {
	n := 1
	for n < runtime.GOMAXPROCS(0) && n < maxShards {
		n *= 2
	}
	return &Requests{shards: make([]shard, n), grpc: make([]grpcShard, n), mask: uint32(n - 1)}
}

// Observe counts a request that ended with this final status (see [ClassOf]) after
// latency, with so many bytes of body received from and sent to the client. shard
// should differ between concurrent requests.
func (r *Requests) Observe(shard uint32, status int, latency time.Duration, bytesIn, bytesOut int64) {
	s := &r.shards[shard&r.mask]
	ns := max(int64(latency), 0)
	s.ended[ClassOf(status)][bucketOf(ns)].Add(1)
	s.latencyNs.Add(ns)
	r.Transfer(shard, bytesIn, bytesOut)
}

// Transfer counts bytes of a request that has not ended. Observe must not count them
// again.
func (r *Requests) Transfer(shard uint32, bytesIn, bytesOut int64) {
	s := &r.shards[shard&r.mask]
	if bytesIn != 0 {
		s.bytesIn.Add(bytesIn)
	}
	if bytesOut != 0 {
		s.bytesOut.Add(bytesOut)
	}
}

// Retry counts one attempt after a request's first.
func (r *Requests) Retry(shard uint32) {
	r.shards[shard&r.mask].retries.Add(1)
}

// Snapshot sums the shards. The fields may disagree by requests that end meanwhile; no
// field ever decreases.
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
		for code := range sum.GRPC {
			sum.GRPC[code] += r.grpc[i].calls[code].Load()
		}
	}
	return sum
}

// RequestsSnapshot is the value of [Requests] at one time.
type RequestsSnapshot struct {
	// Ended counts requests by [Class] and latency bucket, not cumulative.
	Ended [NumClasses][NumBuckets]uint64
	// Latency is the sum over all requests.
	Latency time.Duration
	// BytesIn and BytesOut are bytes of bodies from and to clients.
	BytesIn, BytesOut int64
	// Retries is the number of attempts after the first of each request.
	Retries uint64
	// GRPC counts calls of gRPC by status code.
	GRPC [NumGRPCCodes]uint64
}

func (s *RequestsSnapshot) Total() uint64 {
	var n uint64
	for c := range s.Ended {
		n += s.Class(Class(c))
	}
	return n
}

func (s *RequestsSnapshot) Class(c Class) uint64 {
	var n uint64
	for _, count := range s.Ended[c] {
		n += count
	}
	return n
}

// Buckets returns the number of requests per latency bucket, not cumulative.
func (s *RequestsSnapshot) Buckets() [NumBuckets]uint64 {
	var sum [NumBuckets]uint64
	for c := range s.Ended {
		for b, count := range s.Ended[c] {
			sum[b] += count
		}
	}
	return sum
}

// Quantile estimates the latency that the share q (0 to 1) of the requests did not
// exceed, interpolated as by Prometheus' histogram_quantile: 0 without requests, at
// most 60 s.
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

// NumGRPCCodes is the number of status codes of gRPC; they count from 0.
const NumGRPCCodes = 17

// unknownGRPCCode is what clients take any other code for.
const unknownGRPCCode = 2

var grpcNames = [NumGRPCCodes]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
	"DATA_LOSS", "UNAUTHENTICATED",
}

// GRPCName returns the name of a status code of gRPC, or the number of an unknown one.
func GRPCName(code int) string {
	if code >= 0 && code < NumGRPCCodes {
		return grpcNames[code]
	}
	return strconv.Itoa(code)
}

// grpcShard is one copy of the counters of calls by code. Its size is a multiple of a cache
// line.
type grpcShard struct {
	calls [NumGRPCCodes]atomic.Uint64
	_     [192 - NumGRPCCodes*8]byte
}

// ObserveGRPC counts a gRPC call that ended with this status code; unknown ones count as
// UNKNOWN. The call counts as a request too: see Observe.
func (r *Requests) ObserveGRPC(shard uint32, code int) {
	if code < 0 || code >= NumGRPCCodes {
		code = unknownGRPCCode
	}
	r.grpc[shard&r.mask].calls[code].Add(1)
}
