package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// The decay time of an estimate is minDecay after a single sample, which may be
	// a pause or a lost packet, and grows to maxDecay, Finagle's default, while
	// samples agree.
	minDecay = time.Second
	maxDecay = 10 * time.Second
	// step is the shortest interval between decays: it keeps the cache line of a
	// busy peer from being written by every request.
	step = time.Millisecond
)

// estimate is a peak-sensitive moving average of a peer's latency: a peak counts in
// full at once and decays exponentially ("peak EWMA", twitter.github.io/finagle,
// PeakEwma.scala). Each sample is weighted by the time since the one before (A. Eckner,
// "Algorithms for Unevenly Spaced Time Series").
//
// Unlike Finagle's, reading does not change it, and the decay time depends on how well
// samples agree. With a fixed time of 10 s, one of two peers with few requests gets
// nothing for up to a minute after a single slow answer; with 1 s, a peer that is
// always slow is tried every few seconds.
//
// The zero value has no sample. An estimate is safe for concurrent use without a lock:
// a reader that meets half an update sees the earlier value with a little more or less
// decay.
type estimate struct {
	value  atomic.Uint64 // nanoseconds, a float64; 0 before the first sample
	stamp  atomic.Int64  // time of the last sample, by nanotime
	agreed atomic.Int64  // nanoseconds for which samples have agreed: 0 to maxDecay-minDecay
}

// average returns the estimate, 0 before the first sample.
func (e *estimate) average() time.Duration {
	return time.Duration(math.Float64frombits(e.value.Load()))
}

// decay returns the decay time in nanoseconds.
func (e *estimate) decay() float64 { return float64(int64(minDecay) + e.agreed.Load()) }

// at returns the estimate and its age at the time now, both in nanoseconds. The age is
// negative if the sample is later than now.
func (e *estimate) at(now int64) (value float64, age int64) {
	value = math.Float64frombits(e.value.Load())
	return value, now - e.stamp.Load() // read after value: an old value with a new stamp does no harm
}

// observe adds a latency measured at the time end. Samples may come late and out of
// order.
func (e *estimate) observe(latency time.Duration, end int64) {
	e.update(float64(latency), float64(latency), float64(latency), end)
}

// penalize adds a failure at the time end, which counts as a peak of this latency. It
// does not lower a higher estimate.
func (e *estimate) penalize(latency time.Duration, end int64) {
	peak := float64(latency)
	e.update(peak, 0, max(peak, math.Float64frombits(e.value.Load())), end)
}

// confirm adds an answer that does not show the latency of the peer, such as an error:
// the estimate stays fresh and does not become lower.
func (e *estimate) confirm(latency time.Duration, end int64) {
	value := math.Float64frombits(e.value.Load())
	peak := max(value, float64(latency))
	e.update(peak, value, peak, end)
}

// reset removes all samples.
func (e *estimate) reset() {
	e.value.Store(0)
	e.stamp.Store(0)
	e.agreed.Store(0)
}

// update moves the estimate towards target by the time since the last sample, then
// raises it to peak. sample decides how far the samples agree.
func (e *estimate) update(peak, target, sample float64, end int64) {
	stamp := e.stamp.Load()
	elapsed := end - stamp
	value := math.Float64frombits(e.value.Load())
	if elapsed < 0 { // late: decayed already
		e.raise(peak * math.Exp(float64(elapsed)/float64(minDecay)))
		return
	}
	if elapsed < int64(step) && peak <= value {
		return
	}
	// The goroutine that moves the stamp applies the decay, so that it applies once.
	if !e.stamp.CompareAndSwap(stamp, end) {
		e.raise(peak)
		return
	}
	keep := math.Exp(-float64(elapsed) / e.decay())
	e.agreed.Store(agreement(e.agreed.Load()+elapsed, value, sample))
	for {
		bits := e.value.Load()
		value := math.Float64frombits(bits)
		next := max(peak, value*keep+target*(1-keep))
		if e.value.CompareAndSwap(bits, math.Float64bits(next)) {
			return
		}
	}
}

// agreement returns the time for which samples have agreed after a new one: all of it
// if the sample equals the estimate, less the more they differ.
func agreement(agreed int64, value, sample float64) int64 {
	if value == 0 {
		return 0
	}
	likeness := min(value, sample) / max(value, sample)
	return int64(min(float64(agreed)*likeness, float64(maxDecay-minDecay)))
}

func (e *estimate) raise(sample float64) {
	for {
		bits := e.value.Load()
		value := math.Float64frombits(bits)
		if sample <= value {
			return
		}
		e.agreed.Store(agreement(e.agreed.Load(), value, sample))
		if e.value.CompareAndSwap(bits, math.Float64bits(sample)) {
			return
		}
	}
}
