package balancer

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	ms = time.Millisecond
	// begin is a time by nanotime at which a test may start.
	begin = int64(time.Hour)
)

// near reports whether got is within a thousandth of want.
func near(got, want float64) bool { return math.Abs(got-want) <= 0.001*math.Abs(want) }

func TestAPeakCountsInFullAtOnce(t *testing.T) {
	var e estimate
	e.observe(5*ms, begin)
	if got := e.average(); got != 5*ms {
		t.Errorf("first sample: %v, want 5ms", got)
	}
	e.observe(80*ms, begin+1)
	if got := e.average(); got != 80*ms {
		t.Errorf("peak: %v, want 80ms", got)
	}
}

func TestAPeakIsForgottenAsTimePasses(t *testing.T) {
	// However many samples come in between, one decay leaves 1/e of the
	// difference.
	for _, samples := range []int64{1, 7, 1000} {
		var e estimate
		e.observe(100*ms, begin)
		for i := int64(1); i <= samples; i++ {
			e.observe(10*ms, begin+i*int64(decay)/samples)
		}
		want := float64(10*ms) + float64(90*ms)/math.E
		if got := float64(e.average()); !near(got, want) {
			t.Errorf("after %d samples: %v, want %v", samples, e.average(), time.Duration(want))
		}
	}
}

// Most samples of a busy peer come within a step of the last one and are not
// taken in. That must not keep the estimate from falling.
func TestABusyPeersEstimateFalls(t *testing.T) {
	var e estimate
	e.observe(100*ms, begin)
	for now := begin; now < begin+int64(decay); now += int64(50 * time.Microsecond) {
		e.observe(10*ms, now)
	}
	want := float64(10*ms) + float64(90*ms)/math.E
	if got := float64(e.average()); !near(got, want) {
		t.Errorf("%v, want %v", e.average(), time.Duration(want))
	}
}

func TestTrustFadesWithAge(t *testing.T) {
	var e estimate
	if value, trust := e.at(begin); value != 0 || trust != 0 {
		t.Errorf("no sample: %v, trust %v, want 0, 0", value, trust)
	}
	e.observe(5*ms, begin)
	for age, want := range map[time.Duration]float64{0: 1, decay: 1 / math.E, 3 * decay: math.Exp(-3)} {
		value, trust := e.at(begin + int64(age))
		if value != float64(5*ms) || !near(trust, want) {
			t.Errorf("after %v: %v, trust %v, want 5ms, %v", age, value, trust, want)
		}
	}
	if _, trust := e.at(begin - 1); trust != 1 {
		t.Errorf("at a time before the last sample: trust %v, want 1", trust)
	}
}

// A stream reports its latency when it ends, long after it was measured.
func TestALateSampleCountsForWhatIsLeftOfIt(t *testing.T) {
	var e estimate
	e.observe(5*ms, begin)
	e.observe(10*ms, begin-int64(time.Minute))
	if got := e.average(); got != 5*ms {
		t.Errorf("%v, want 5ms", got)
	}
	e.observe(10*time.Second, begin-int64(decay))
	if got := float64(e.average()); !near(got, float64(10*time.Second)/math.E) {
		t.Errorf("%v, want 10s/e", e.average())
	}
	if _, trust := e.at(begin); trust != 1 {
		t.Errorf("a late sample made the estimate older: trust %v", trust)
	}
}

func TestAFailureIsAPeak(t *testing.T) {
	f := func(before time.Duration, o Outcome, want time.Duration) {
		t.Helper()
		var p Peer
		if before > 0 {
			p.latency.observe(before, begin)
		}
		p.measure(o, begin+int64(ms))
		if got := p.Latency(); !near(float64(got), float64(want)) {
			t.Errorf("%v, then %v after %v: %v, want %v", before, o.Class, o.Latency, got, want)
		}
		if want == before {
			return
		}
		if _, trust := p.latency.at(begin + int64(ms)); want > 0 && trust != 1 {
			t.Errorf("%v, then %v: trust %v, want 1", before, o.Class, trust)
		}
	}
	for _, c := range []OutcomeClass{OutcomeConnectFailure, OutcomeReset, OutcomeTimeout} {
		f(0, Outcome{Class: c}, failureLatency)
		f(5*ms, Outcome{Class: c, Latency: ms}, failureLatency)
		f(5*ms, Outcome{Class: c, Latency: time.Minute}, time.Minute)
		f(time.Minute, Outcome{Class: c, Latency: ms}, time.Minute)
	}
	// A quick error is no merit, a slow one is slow.
	f(5*ms, Outcome{Class: OutcomeServerError, Latency: ms}, 5*ms)
	f(5*ms, Outcome{Class: OutcomeServerError, Latency: 9 * ms}, 9*ms)
	f(0, Outcome{Class: OutcomeServerError, Latency: ms}, failureLatency)
	// None of these says anything about the peer.
	for _, c := range []OutcomeClass{OutcomeStale, OutcomeClientGone, OutcomeLocal} {
		f(0, Outcome{Class: c, Latency: time.Second}, 0)
		f(5*ms, Outcome{Class: c, Latency: time.Second}, 5*ms)
	}
	f(5*ms, Outcome{Class: OutcomeOK}, 5*ms)
}

// A peer that fails all the time must stay unattractive all the time.
func TestFailuresKeepTheEstimateFresh(t *testing.T) {
	for _, o := range []Outcome{{Class: OutcomeConnectFailure}, {Class: OutcomeServerError, Latency: ms}} {
		var p Peer
		p.latency.observe(time.Minute, begin)
		end := begin
		for range 100 {
			end += int64(time.Second)
			p.measure(o, end)
			if _, trust := p.latency.at(end); trust != 1 {
				t.Fatalf("%v: trust %v, want 1", o.Class, trust)
			}
		}
		if got := p.Latency(); got < failureLatency {
			t.Errorf("%v: %v, want at least %v", o.Class, got, failureLatency)
		}
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
		if got := e.average(); got < time.Second-ms {
			t.Fatalf("%v, want 1s", got)
		}
	}
}
