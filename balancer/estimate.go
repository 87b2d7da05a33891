package balancer

import (
	"cmp"
	"math"
	"sync/atomic"
	"time"
)

const (
	// averaging is the time over which a mean is taken, if there are enough samples in it. A sample
	// moves the mean by leastShare to mostShare of the difference, and counts at most maxSample
	// times the mean: a request that takes long on any peer says little of this one.
	averaging  = 2 * time.Second
	leastShare = 0.01
	mostShare  = 0.2
	maxSample  = 2.5
	// The decay time of an estimate is minDecay after a single sample, which may be
	// a pause or a lost packet, and grows to maxDecay, Finagle's default, while
	// samples agree.
	minDecay = time.Second
	maxDecay = 10 * time.Second
	// avoided is after how long without a sample a peer has been avoided for its latency. One with
	// more samples is known by those: what is usual for it must not fade.
	avoided = 3 * minDecay
	// step is the shortest interval between decays: it keeps the cache line of a
	// busy peer from being written by every request.
	step = time.Millisecond
)

// estimate is a moving average of a peer's latency. Each sample is weighted by the time since the
// one before (A. Eckner, "Algorithms for Unevenly Spaced Time Series"), within leastShare and
// mostShare; a failure counts in full at once.
//
// A mean follows from few samples how fast a peer is, where a peak ("peak EWMA",
// twitter.github.io/finagle, PeakEwma.scala) mostly shows which request was the slowest one. The
// decay time depends on how well samples agree. With a fixed time of 10 s, one of two peers with
// few requests gets nothing for up to a minute after a single slow answer; with 1 s, a peer that is
// always slow is tried every few seconds.
//
// The zero value has no sample. A peer's first answer is none either; see begin. An estimate is
// safe for concurrent use without a lock: a reader that meets half an update sees the earlier value
// with a little more or less decay.
type estimate struct {
	value  atomic.Uint64 // nanoseconds, a float64; 0 before the first sample
	stamp  atomic.Int64  // time of the last sample, or of the first answer, by nanotime
	agreed atomic.Int64  // nanoseconds for which samples have agreed: 0 to maxDecay-minDecay
}

// average returns the estimate, 0 before the first sample.
func (e *estimate) average() time.Duration {
	return time.Duration(math.Float64frombits(e.value.Load()))
}

// decay returns the decay time in nanoseconds.
func (e *estimate) decay() float64 { return float64(int64(minDecay) + e.agreed.Load()) }

// begin reports whether an answer that came at the time end is the first one. It says that the
// peer answers, and not how fast: a first answer often waits for a process that is not ready yet,
// and as a sample it would keep requests from the peer for a minute.
func (e *estimate) begin(end int64) bool { return e.stamp.CompareAndSwap(0, end) }

// observe adds a latency measured at the time end, while the usual one of the pool is usual.
// Samples may come late and out of order; late ones do not count.
//
// If a peer was avoided, a faster sample moves the value that a pick would compare, in which a slow
// one has faded. Otherwise each fast answer would bring the slow one back, a fifth smaller.
func (e *estimate) observe(latency, usual time.Duration, end int64) {
	sample, value := float64(latency), math.Float64frombits(e.value.Load())
	stamp := e.stamp.Load()
	elapsed := end - stamp
	if elapsed < int64(step) || !e.stamp.CompareAndSwap(stamp, end) {
		return
	}
	next := sample
	if value != 0 {
		from := value
		if sample < value && elapsed >= int64(avoided) {
			from = max(sample, e.faded(value, float64(usual), elapsed))
		}
		share := min(max(1-math.Exp(-float64(elapsed)/float64(averaging)), leastShare), mostShare)
		next = from + (min(sample, from*maxSample)-from)*share
	}
	e.agreed.Store(agreement(e.agreed.Load()+elapsed, value, sample))
	e.value.CompareAndSwap(math.Float64bits(value), math.Float64bits(next)) // a failure meanwhile counts for more
}

// faded returns what value is worth when the last sample has this age: one above the usual
// latency approaches it, from maxSlower times that at most. A value below the usual latency
// stays.
func (e *estimate) faded(value, usual float64, age int64) float64 {
	value = min(value, usual*maxSlower)
	slower := value - usual
	if slower <= 0 || age < int64(fresh) {
		return value
	}
	return usual + slower*math.Exp(-float64(age)/e.decay())
}

// penalize adds a failure at the time end, which counts as this latency in full. It does not lower
// a higher estimate, which decays towards it.
func (e *estimate) penalize(latency time.Duration, end int64) {
	failure, stamp := float64(latency), e.stamp.Load()
	elapsed := end - stamp
	if elapsed < 0 { // late: decayed already
		failure *= math.Exp(float64(elapsed) / float64(minDecay))
	}
	// The goroutine that moves the stamp applies the decay, so that it applies once.
	if elapsed < int64(step) || !e.stamp.CompareAndSwap(stamp, end) {
		e.raise(failure)
		return
	}
	value := math.Float64frombits(e.value.Load())
	keep := math.Exp(-float64(elapsed) / e.decay())
	e.agreed.Store(agreement(e.agreed.Load()+elapsed, value, max(failure, value)))
	for {
		bits := e.value.Load()
		next := max(failure, math.Float64frombits(bits)*keep)
		if e.value.CompareAndSwap(bits, math.Float64bits(next)) {
			return
		}
	}
}

// confirm adds an answer that does not show the latency of the peer, such as an error:
// the estimate stays fresh, does not become lower, and does not begin below the usual latency,
// or while none is known.
func (e *estimate) confirm(latency, usual time.Duration, end int64) {
	if least := cmp.Or(e.average(), usual); least > 0 {
		e.observe(max(latency, least), usual, end)
	}
}

// reset removes all samples.
func (e *estimate) reset() {
	e.value.Store(0)
	e.stamp.Store(0)
	e.agreed.Store(0)
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
