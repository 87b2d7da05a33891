package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// decay is the time after which an old latency weighs 1/e. Finagle's default.
	decay = 10 * time.Second
	// step is how often an estimate is lowered at most. It spares a busy peer's
	// cache line, and is far below decay.
	step = time.Millisecond
)

// estimate is a moving average of a peer's latency, in which a peak counts in
// full at once and is forgotten exponentially as time passes: "peak EWMA", by
// Finagle (twitter.github.io/finagle, PeakEwma.scala). Samples come at uneven
// times, so each is weighted by the time since the one before (A. Eckner,
// "Algorithms for Unevenly Spaced Time Series").
//
// It differs from Finagle's in that reading does not change it. Whoever reads
// it is told how far it can be trusted; see at.
//
// The zero value has seen no sample. An estimate is safe for concurrent use
// without a lock: value and stamp are two words, and what can be seen of a
// change half done is the value before it.
type estimate struct {
	value atomic.Uint64 // nanoseconds, a float64; 0 before the first sample
	stamp atomic.Int64  // when the last sample that counted was taken, by nanotime
}

// average returns the estimate, 0 before the first sample.
func (e *estimate) average() time.Duration {
	return time.Duration(math.Float64frombits(e.value.Load()))
}

// at returns the estimate in nanoseconds and how far it can be trusted at the
// time now: from 1 for a fresh one down to 0 for one from long ago, or for
// none.
func (e *estimate) at(now int64) (value, trust float64) {
	value = math.Float64frombits(e.value.Load())
	age := now - e.stamp.Load() // read after value: an old value with a new stamp does no harm
	switch {
	case value == 0:
		return 0, 0
	case age < int64(decay/100):
		return value, 1
	}
	return value, math.Exp(-float64(age) / float64(decay))
}

// observe takes in a latency that was measured at the time end. Samples may
// come late and out of order.
func (e *estimate) observe(latency time.Duration, end int64) {
	e.update(float64(latency), float64(latency), end)
}

// penalize takes in that the peer failed at the time end, which counts as a
// peak of this latency. An estimate above it is not drawn towards it.
func (e *estimate) penalize(latency time.Duration, end int64) {
	e.update(float64(latency), 0, end)
}

// confirm takes in that at the time end the peer gave an answer that says
// nothing about how fast it can be, after this latency: the estimate remains
// fresh and does not become lower.
func (e *estimate) confirm(latency time.Duration, end int64) {
	value := math.Float64frombits(e.value.Load())
	e.update(max(value, float64(latency)), value, end)
}

// forget makes it an estimate that has seen no sample. One that is taken in at the
// same time may be in it or not.
func (e *estimate) forget() {
	e.value.Store(0)
	e.stamp.Store(0)
}

// update lets the estimate approach target, from the last stamp to end, and
// then lifts it to peak if it is lower.
func (e *estimate) update(peak, target float64, end int64) {
	stamp := e.stamp.Load()
	elapsed := end - stamp
	if elapsed < 0 { // late: it counts for what would be left of it by now
		e.raise(peak * math.Exp(float64(elapsed)/float64(decay)))
		return
	}
	if elapsed < int64(step) && peak <= math.Float64frombits(e.value.Load()) {
		return
	}
	// Whoever moves the stamp has the time up to it to himself, so that no time
	// counts twice.
	if !e.stamp.CompareAndSwap(stamp, end) {
		e.raise(peak)
		return
	}
	keep := math.Exp(-float64(elapsed) / float64(decay))
	for {
		bits := e.value.Load()
		value := math.Float64frombits(bits)
		next := max(peak, value*keep+target*(1-keep))
		if e.value.CompareAndSwap(bits, math.Float64bits(next)) {
			return
		}
	}
}

// raise lifts the estimate to sample if it is lower.
func (e *estimate) raise(sample float64) {
	for {
		bits := e.value.Load()
		if sample <= math.Float64frombits(bits) || e.value.CompareAndSwap(bits, math.Float64bits(sample)) {
			return
		}
	}
}
