package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// lone is the time after which a latency that was seen once weighs 1/e, and
	// borneOut that after which one does that samples have borne out for long:
	// Finagle's default. One slow answer may be a pause or a lost packet; a peer
	// that is slow each time it is tried is one to leave alone.
	lone     = time.Second
	borneOut = 10 * time.Second
	// step is how often an estimate is lowered at most. It spares a busy peer's
	// cache line, and is far below lone.
	step = time.Millisecond
)

// estimate is a moving average of a peer's latency, in which a peak counts in
// full at once and is forgotten exponentially as time passes: "peak EWMA", by
// Finagle (twitter.github.io/finagle, PeakEwma.scala). Samples come at uneven
// times, so each is weighted by the time since the one before (A. Eckner,
// "Algorithms for Unevenly Spaced Time Series").
//
// It differs from Finagle's in that reading does not change it, and in how fast
// it forgets: that depends on whether samples bear it out. With a fixed time of
// 10 s, of two peers with few requests one gets nothing for up to a minute after
// a single slow answer; with one of 1 s, a peer that is always slow is tried
// every few seconds for ever.
//
// The zero value has seen no sample. An estimate is safe for concurrent use
// without a lock: it is three words, and what can be seen of a change half done
// is the value before it, forgotten a little sooner or later.
type estimate struct {
	value   atomic.Uint64 // nanoseconds, a float64; 0 before the first sample
	stamp   atomic.Int64  // when the last sample that counted was taken, by nanotime
	support atomic.Int64  // for how long, in nanoseconds, samples have borne it out: 0 to borneOut-lone
}

// average returns the estimate, 0 before the first sample.
func (e *estimate) average() time.Duration {
	return time.Duration(math.Float64frombits(e.value.Load()))
}

// fade is the time in nanoseconds after which the estimate weighs 1/e.
func (e *estimate) fade() float64 { return float64(int64(lone) + e.support.Load()) }

// at returns the estimate in nanoseconds and its age in nanoseconds at the time
// now, which is below 0 if it was taken later.
func (e *estimate) at(now int64) (value float64, age int64) {
	value = math.Float64frombits(e.value.Load())
	return value, now - e.stamp.Load() // read after value: an old value with a new stamp does no harm
}

// observe takes in a latency that was measured at the time end. Samples may
// come late and out of order.
func (e *estimate) observe(latency time.Duration, end int64) {
	e.update(float64(latency), float64(latency), float64(latency), end)
}

// penalize takes in that the peer failed at the time end, which counts as a
// peak of this latency. An estimate above it is not drawn towards it.
func (e *estimate) penalize(latency time.Duration, end int64) {
	peak := float64(latency)
	e.update(peak, 0, max(peak, math.Float64frombits(e.value.Load())), end)
}

// confirm takes in that at the time end the peer gave an answer that says
// nothing about how fast it can be, after this latency: the estimate remains
// fresh and does not become lower.
func (e *estimate) confirm(latency time.Duration, end int64) {
	value := math.Float64frombits(e.value.Load())
	peak := max(value, float64(latency))
	e.update(peak, value, peak, end)
}

// forget makes it an estimate that has seen no sample. One that is taken in at the
// same time may be in it or not.
func (e *estimate) forget() {
	e.value.Store(0)
	e.stamp.Store(0)
	e.support.Store(0)
}

// update lets the estimate approach target, from the last stamp to end, and
// then lifts it to peak if it is lower. What it is worth depends on how like it
// sample is.
func (e *estimate) update(peak, target, sample float64, end int64) {
	stamp := e.stamp.Load()
	elapsed := end - stamp
	value := math.Float64frombits(e.value.Load())
	if elapsed < 0 { // late: it counts for what would be left of it by now
		e.raise(peak * math.Exp(float64(elapsed)/float64(lone)))
		return
	}
	if elapsed < int64(step) && peak <= value {
		return
	}
	// Whoever moves the stamp has the time up to it to himself, so that no time
	// counts twice.
	if !e.stamp.CompareAndSwap(stamp, end) {
		e.raise(peak)
		return
	}
	keep := math.Exp(-float64(elapsed) / e.fade())
	e.support.Store(supported(e.support.Load()+elapsed, value, sample))
	for {
		bits := e.value.Load()
		value := math.Float64frombits(bits)
		next := max(peak, value*keep+target*(1-keep))
		if e.value.CompareAndSwap(bits, math.Float64bits(next)) {
			return
		}
	}
}

// supported returns what is left of the support of an estimate of this value when
// a sample comes: all of it if both are equal, the less the more they differ.
func supported(support int64, value, sample float64) int64 {
	if value == 0 {
		return 0
	}
	likeness := min(value, sample) / max(value, sample)
	return int64(min(float64(support)*likeness, float64(borneOut-lone)))
}

// raise lifts the estimate to sample if it is lower.
func (e *estimate) raise(sample float64) {
	for {
		bits := e.value.Load()
		value := math.Float64frombits(bits)
		if sample <= value {
			return
		}
		e.support.Store(supported(e.support.Load(), value, sample))
		if e.value.CompareAndSwap(bits, math.Float64bits(sample)) {
			return
		}
	}
}
