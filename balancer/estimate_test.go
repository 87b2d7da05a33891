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

func TestAPeakCountsInFullAtOnce(t *testing.T) {
	var e estimate
	e.observe(5*ms, begin)
	verify.Equal(t, e.average(), 5*ms, "first sample")
	e.observe(80*ms, begin+1)
	verify.Equal(t, e.average(), 80*ms, "peak")
}

func TestASinglePeakDecaysSoon(t *testing.T) {
	// Of 90 ms above the usual latency, a third or a little more remains after a
	// second, with any number of samples in between. Most samples of a busy peer are
	// within a step of the last one, which must not prevent the decay.
	for _, samples := range []int64{1, 7, 1000, 20_000} {
		var e estimate
		e.observe(100*ms, begin)
		for i := int64(1); i <= samples; i++ {
			e.observe(10*ms, begin+i*int64(minDecay)/samples)
		}
		got, least := e.average(), 10*ms+time.Duration(math.Round(float64(90*ms)/math.E))
		verify.That(t, got >= least-ms/10 && got <= least*6/5, "after %d samples: %v, want %v or a little more", samples, got, least)
		for i := int64(1); i <= samples; i++ {
			e.observe(10*ms, begin+int64(minDecay)+i*5*int64(minDecay)/samples)
		}
		got = e.average()
		verify.That(t, got <= 12*ms, "after %d more samples: %v, want close to 10ms", samples, got)
	}
}

// The estimate from one sample decays within seconds. The estimate from many samples does not,
// until a sample contradicts it.
func TestAnEstimateIsTrustedAsLongAsSamplesConfirmedIt(t *testing.T) {
	var e estimate
	fade := func(what string, want time.Duration) {
		t.Helper()
		if got := e.decay(); !near(got, float64(want)) {
			t.Errorf("%s: forgotten after %v, want %v", what, time.Duration(got), want)
		}
	}
	fade("no sample", minDecay)
	e.observe(5*ms, begin)
	fade("one", minDecay)
	e.observe(5*ms, begin+3*int64(time.Second))
	fade("another, three seconds later", 4*time.Second)
	e.observe(5*ms, begin+int64(time.Minute))
	fade("one more, a minute later", maxDecay)
	e.observe(500*ms, begin+int64(time.Minute)+int64(ms))
	fade("a peak", minDecay+90*ms)
	e.observe(5*ms, begin+int64(time.Minute)+int64(time.Second))
	fade("none any more", minDecay+(90*ms+999*ms)/100)
	e.reset()
	fade("forgotten", minDecay)

	e.observe(5*ms, begin)
	e.observe(5*ms, begin+int64(time.Minute))
	fade("for a minute", maxDecay)
	e.observe(5*time.Second, begin+int64(time.Minute)-int64(minDecay))
	if got := e.decay(); got > float64(minDecay+100*ms) {
		t.Errorf("a peak that is reported late decays after %v", time.Duration(got))
	}
}

func TestAnEstimateGrowsOld(t *testing.T) {
	var e estimate
	value, _ := e.at(begin)
	verify.That(t, value == 0, "no sample: %v, want 0", value)
	e.observe(5*ms, begin)
	for _, passed := range []time.Duration{0, minDecay, -1} {
		if value, age := e.at(begin + int64(passed)); value != float64(5*ms) || age != int64(passed) {
			t.Errorf("after %v: %v, age %v, want 5ms", passed, value, time.Duration(age))
		}
	}
}

// A stream reports its latency when it ends, long after it was measured.
func TestALateSampleCountsWithItsAge(t *testing.T) {
	var e estimate
	e.observe(5*ms, begin)
	e.observe(10*ms, begin-int64(time.Minute))
	verify.Equal(t, e.average(), 5*ms, "e.average()")
	e.observe(10*time.Second, begin-int64(minDecay))
	if got := float64(e.average()); !near(got, float64(10*time.Second)/math.E) {
		t.Errorf("%v, want 10s/e", e.average())
	}
	_, age := e.at(begin)
	verify.That(t, age == 0, "a late sample made the estimate older: %v", age)
}

func TestAFailureIsAPeak(t *testing.T) {
	f := func(before time.Duration, o Outcome, want time.Duration) {
		t.Helper()
		var p Peer
		if before > 0 {
			p.latency.observe(before, begin)
		}
		p.measure(o, begin+int64(ms))
		got := p.Latency()
		verify.That(t, near(float64(got), float64(want)), "%v, then %v after %v: %v, want %v", before, o.Class, o.Latency, got, want)
		if want == before {
			return
		}
		_, age := p.latency.at(begin + int64(ms))
		verify.That(t, want <= 0 || age == 0, "%v, then %v: age %v, want 0", before, o.Class, age)
	}
	for _, c := range []OutcomeClass{OutcomeConnectFailure, OutcomeReset, OutcomeTimeout} {
		f(0, Outcome{Class: c}, failureLatency)
		f(5*ms, Outcome{Class: c, Latency: ms}, failureLatency)
		f(5*ms, Outcome{Class: c, Latency: time.Minute}, time.Minute)
		f(time.Minute, Outcome{Class: c, Latency: ms}, time.Minute)
	}
	// A fast error does not lower the latency, a slow one raises it.
	f(5*ms, Outcome{Class: OutcomeServerError, Latency: ms}, 5*ms)
	f(5*ms, Outcome{Class: OutcomeServerError, Latency: 9 * ms}, 9*ms)
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
		var p Peer
		p.latency.observe(time.Minute, begin)
		end := begin
		for range 100 {
			end += int64(time.Second)
			p.measure(o, end)
			_, age := p.latency.at(end)
			verify.Require(t, age == 0, "%v: age %v, want 0", o.Class, age)
		}
		got := p.Latency()
		verify.That(t, got >= failureLatency, "%v: %v, want at least %v", o.Class, got, failureLatency)
		got = time.Duration(p.latency.decay())
		verify.That(t, got >= maxDecay*3/4, "%v: a peer that always fails is tried again as after one failure: forgotten after %v", o.Class, got)
	}
}

func TestNoPeakIsLostAmongConcurrentSamples(t *testing.T) {
	for range 500 {
		var e estimate
		e.observe(ms, begin)
		var ready, start atomic.Bool
		var other sync.WaitGroup
		other.Go(func() {
			for ready.Store(true); !start.Load(); {
				runtime.Gosched()
			}
			e.observe(5*ms, begin+int64(step))
		})
		for !ready.Load() {
			runtime.Gosched()
		}
		start.Store(true)
		e.observe(time.Second, begin+int64(step))
		other.Wait()
		got := e.average()
		verify.Require(t, got >= time.Second-ms, "%v, want 1s", got)
	}
}
