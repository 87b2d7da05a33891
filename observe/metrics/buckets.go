package metrics

import (
	"math"
	"math/bits"
)

// NumBuckets is the number of latency buckets, including the unbounded last one.
const NumBuckets = 19

// bounds are the inclusive upper bounds of the buckets in nanoseconds. Each is at least
// twice the one before, which bucketOf relies on.
var bounds = [NumBuckets]int64{
	100e3, 250e3, 500e3, // 0.1, 0.25, 0.5 ms
	1e6, 2500e3, 5e6, 10e6, 25e6, 50e6, 100e6, 250e6, 500e6, // 1 to 500 ms
	1e9, 2500e6, 5e9, 10e9, 30e9, 60e9, // 1 to 60 s
	math.MaxInt64,
}

// firstBucket maps the bit length of a latency to the bucket of the shortest latency
// with that many bits. Since bounds at least double, a latency is in this bucket or the
// next.
var firstBucket = func() (t [65]uint8) {
	for n := range t {
		var shortest int64
		if n > 0 && n < 64 {
			shortest = 1 << (n - 1)
		}
		for bounds[t[n]] < shortest {
			t[n]++
		}
	}
	return t
}()

// bucketOf returns the index of the first bound that is at least ns, which must not be
// negative.
func bucketOf(ns int64) int {
	i := int(firstBucket[bits.Len64(uint64(ns))])
	if ns > bounds[i] {
		i++
	}
	return i
}
