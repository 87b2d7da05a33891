package balancer

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/test/verify"
)

const (
	ms = time.Millisecond
	// begin is a value of nanotime for the start of a test.
	begin = int64(time.Hour)
)

// near reports whether got is within a thousandth of want.
func near(got, want float64) bool { return math.Abs(got-want) <= 0.001*math.Abs(want) }

// moves returns a check of what a sample, so long after a first one, makes of the mean.
func moves(t *testing.T, first time.Duration) func(sample, after, want time.Duration) {
	return func(sample, after, want time.Duration) {
		t.Helper()
		var e estimate
		e.observe(first, 5*ms, begin)
		e.observe(sample, 5*ms, begin+int64(after))
		verify.That(t, near(float64(e.average()), float64(want)), "%v after %v: %v, want %v", sample, after, e.average(), want)
	}
}

func TestASampleMovesTheMean(t *testing.T) {
	f := moves(t, 5*ms)
	f(10*ms, 10*ms, 5050*time.Microsecond)             // by the smallest share
	f(10*ms, time.Minute, 6*ms)                        // by the largest
	f(time.Minute, time.Minute, 6500*time.Microsecond) // as 2.5 times the mean
	f(0, 200*ms, 4524187*time.Nanosecond)              // by 1 - exp(-0.1)
	f(time.Minute, step-1, 5*ms)                       // too soon
	f(time.Minute, -time.Millisecond, 5*ms)            // late
}

// What has faded in a pick has faded for the next sample, unless that is slow too.
func TestAFasterSampleMovesWhatAPickCompares(t *testing.T) {
	f := moves(t, 105*ms)
	f(5*ms, avoided-step, 85*ms)            // a fifth less of what is above; nothing has faded yet
	f(5*ms, avoided, 8983*time.Microsecond) // and what is above is 100 ms / e³
	f(5*ms, time.Minute, 5*ms)
	f(50*ms, time.Minute, 50*ms)
	f(110*ms, time.Minute, 106*ms)
	f(ms, time.Minute, 4200*time.Microsecond)
}

// The mean follows a change within seconds, with any number of samples in between. Most samples of
// a busy peer are within a step of the last one, which must not prevent that.
func TestTheMeanFollowsAChange(t *testing.T) {
	for _, samples := range []int64{20, 1000, 20_000} {
		var e estimate
		e.observe(100*ms, 100*ms, begin)
		const passed = int64(5 * averaging)
		for i := int64(1); i <= samples; i++ {
			e.observe(10*ms, 100*ms, begin+i*passed/samples)
		}
		got := e.average()
		verify.That(t, got >= 10*ms && got <= 12*ms, "after %d samples: %v, want close to 10ms", samples, got)
	}
}

// The estimate from one sample decays within seconds. The estimate from many samples does not,
// until a sample contradicts it.
func TestAnEstimateIsTrustedAsLongAsSamplesConfirmedIt(t *testing.T) {
	var e estimate
	fade := func(what string, want time.Duration) {
		t.Helper()
		verify.That(t, near(e.decay(), float64(want)),
			"%s: forgotten after %v, want %v", what, time.Duration(e.decay()), want)
	}
	fade("no sample", minDecay)
	e.observe(5*ms, 5*ms, begin)
	fade("one", minDecay)
	e.observe(5*ms, 5*ms, begin+3*int64(time.Second))
	fade("another, three seconds later", 4*time.Second)
	e.observe(5*ms, 5*ms, begin+int64(time.Minute))
	fade("one more, a minute later", maxDecay)
	e.observe(500*ms, 5*ms, begin+int64(time.Minute)+int64(ms))
	fade("one that differs", minDecay+90*ms)
	e.reset()
	fade("forgotten", minDecay)

	e.observe(5*ms, 5*ms, begin)
	e.observe(5*ms, 5*ms, begin+int64(time.Minute))
	fade("for a minute", maxDecay)
	e.penalize(5*time.Second, begin+int64(time.Minute)-int64(minDecay))
	got := time.Duration(e.decay())
	verify.That(t, got <= minDecay+100*ms, "a failure that is reported late decays after %v", got)
}

func TestALateFailureCountsWithItsAge(t *testing.T) {
	var e estimate
	e.observe(5*ms, 5*ms, begin)
	e.penalize(10*ms, begin-int64(time.Minute))
	verify.Equal(t, e.average(), 5*ms, "e.average()")
	e.penalize(10*time.Second, begin-int64(minDecay))
	verify.That(t, near(float64(e.average()), float64(10*time.Second)/math.E),
		"%v, want 10s/e", e.average())
	verify.Equal(t, e.stamp.Load(), begin, "time of the last sample after a late failure")
}

func TestAFailureCountsInFull(t *testing.T) {
	f := func(before time.Duration, o Outcome, want time.Duration) {
		t.Helper()
		p := Peer{pool: new(Pool)}
		if before > 0 {
			p.latency.observe(before, before, begin)
		}
		p.measure(o, begin+int64(ms-o.Latency))
		got := p.Latency()
		verify.That(t, near(float64(got), float64(want)), "%v, then %v after %v: %v, want %v", before, o.Class, o.Latency, got, want)
		if want == before {
			return
		}
		age := begin + int64(ms) - p.latency.stamp.Load()
		verify.That(t, want <= 0 || age == 0, "%v, then %v: age %v, want 0", before, o.Class, age)
	}
	for _, c := range []OutcomeClass{OutcomeConnectFailure, OutcomeReset, OutcomeTimeout} {
		f(0, Outcome{Class: c}, failureLatency)
		f(5*ms, Outcome{Class: c, Latency: ms}, failureLatency)
		f(5*ms, Outcome{Class: c, Latency: time.Minute}, time.Minute)
		f(time.Minute, Outcome{Class: c, Latency: ms}, time.Minute)
	}
	// A fast error does not lower the latency, a slow one counts as a sample.
	f(5*ms, Outcome{Class: OutcomeServerError, Latency: ms}, 5*ms)
	f(5*ms, Outcome{Class: OutcomeServerError, Latency: 9 * ms}, 5*ms+4*ms/100)
	f(0, Outcome{Class: OutcomeServerError, Latency: ms}, failureLatency)
	// None of these is caused by the peer.
	for _, c := range []OutcomeClass{OutcomeStale, OutcomeClientGone, OutcomeLocal} {
		f(0, Outcome{Class: c, Latency: time.Second}, 0)
		f(5*ms, Outcome{Class: c, Latency: time.Second}, 5*ms)
	}
	f(5*ms, Outcome{Class: OutcomeOK}, 5*ms)
}

// The estimate of a peer that always fails stays high.
func TestFailuresKeepTheEstimateFresh(t *testing.T) {
	for _, o := range []Outcome{{Class: OutcomeConnectFailure}, {Class: OutcomeServerError, Latency: ms}} {
		p := Peer{pool: new(Pool)}
		p.latency.observe(time.Minute, time.Minute, begin)
		end := begin
		for range 100 {
			end += int64(time.Second)
			p.measure(o, end-int64(o.Latency))
			age := end - p.latency.stamp.Load()
			verify.Require(t, age == 0, "%v: age %v, want 0", o.Class, age)
		}
		got := p.Latency()
		verify.That(t, got >= failureLatency, "%v: %v, want at least %v", o.Class, got, failureLatency)
		got = time.Duration(p.latency.decay())
		verify.That(t, got >= maxDecay*3/4, "%v: a peer that always fails is tried again as after one failure: forgotten after %v", o.Class, got)
	}
}

func TestNoFailureIsLostAmongConcurrentSamples(t *testing.T) {
	for range 500 {
		var e estimate
		e.observe(ms, ms, begin)
		var ready, start atomic.Bool
		var other sync.WaitGroup
		other.Go(func() {
			for ready.Store(true); !start.Load(); {
				runtime.Gosched()
			}
			e.observe(5*ms, 5*ms, begin+int64(step))
		})
		for !ready.Load() {
			runtime.Gosched()
		}
		start.Store(true)
		e.penalize(time.Second, begin+int64(step))
		other.Wait()
		got := e.average()
		verify.Require(t, got >= time.Second-ms, "%v, want 1s", got)
	}
}
