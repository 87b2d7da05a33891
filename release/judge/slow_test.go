package judge

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/test/long"
	"sluice/test/verify"
)

// timing is what the latencies of a simulated service depend on, and what is known of them.
type timing struct {
	heavy  []bool  // clients whose requests take ten times as long
	factor float64 // of the latencies with the canary
	burden float64 // of all latencies now, in addition to wave: bad hours
	wave   float64 // of all latencies in this second; it rises and falls

	recent [2]Recent // of the canary and the baseline
	limits [2]time.Duration
	p90    [2]time.Duration
}

// newTimedService returns a service whose canary takes factor times as long as the baseline. The
// latencies of both rise and fall together.
func newTimedService(seed uint64, clients int, heavy, factor float64) *service {
	s := newService(seed, clients, 0, 0, 0)
	s.timed = &timing{factor: factor, limits: [2]time.Duration{math.MaxInt64, math.MaxInt64}}
	for range clients {
		s.timed.heavy = append(s.timed.heavy, s.random.Float64() < heavy)
	}
	return s
}

// time simulates the latency of a request of client n.
func (s *service) time(r *Release, n int, canary bool) {
	t := s.timed
	ms := 20 * math.Exp(0.6*s.random.NormFloat64()) * (t.wave + t.burden)
	if t.heavy[n] {
		ms *= 10
	}
	arm := 1
	if canary {
		ms *= t.factor
		arm = 0
	}
	latency := time.Duration(ms * float64(time.Millisecond))
	t.recent[arm].Add(latency)
	if latency > t.limits[arm] {
		r.Slow(uint64(n)+1, canary, s.share)
	}
}

// begin begins a second.
func (t *timing) begin(now time.Time) { t.wave = 1.5 + math.Sin(float64(now.Unix())/50) }

// measure updates what is known.
func (s *service) measure(settings Settings) {
	t := s.timed
	for i := range t.recent {
		t.p90[i] = t.recent[i].Quantile(SlowQuantile)
	}
	t.limits[0], t.limits[1] = settings.Limits(t.p90[1])
	t.burden = 0
	if s.random.IntN(5) == 0 { // everything is slow for a while
		t.burden = 10
	}
}

var timedSettings = func() Settings {
	s := settings
	s.Slower = 0.5
	return s
}()

// Canaries that are as fast as the baseline, or slower by what is allowed, are not rolled back: 1
// in 1,000 at most.
func TestFalseRollbacksOfSlowCanaries(t *testing.T) {
	fewRollbacks(t, timedSettings, long.Count(t, 50, 1000), map[string]func(seed uint64) *service{
		"as fast, heavy clients": func(seed uint64) *service { return newTimedService(seed, 2000, 0.05, 1) },
		"as slow as allowed":     func(seed uint64) *service { return newTimedService(seed, 2000, 0.01, 1.5) },
		"few clients":            func(seed uint64) *service { return newTimedService(seed, 200, 0.08, 1.5) },
	})
}

// Slow canaries are rolled back, most of them in the first step.
func TestSlowCanariesAreRolledBack(t *testing.T) {
	long.Sequential(t)
	releases := long.Count(t, 20, 100)
	for _, test := range []struct {
		factor  float64
		seconds int // median until the rollback
		missed  int // percent
	}{{2, 700, 5}, {3, 60, 0}, {10, 40, 0}} {
		var took []int
		missed := 0
		for seed := range releases {
			s := newTimedService(uint64(seed), 2000, 0.02, test.factor)
			if d := s.run(timedSettings, 100); d.Verdict != Rollback {
				missed++
				t.Logf("seed %d: %v times as slow: %+v", seed, test.factor, d)
			}
			took = append(took, int(s.now.Sub(time.Time{}).Seconds()))
		}
		slices.Sort(took)
		t.Logf("%v times as slow, 2000 clients, 100 requests a second: after %d s at the median, %d s at most; %d of %d missed",
			test.factor, took[releases/2], took[releases-1], missed, releases)
		verify.That(t, missed <= test.missed*releases/100, "%v times as slow: %d of %d releases were not rolled back", test.factor, missed, releases)
		verify.That(t, took[releases/2] <= test.seconds, "%v times as slow: after %d s at the median, want at most %d", test.factor, took[releases/2], test.seconds)
	}
}

// slowly adds slow requests of new clients.
func slowly(r *Release, o *Observation, canary bool, clients int) {
	for range clients {
		r.Slow(uint64(len(r.slow.counted)+1), canary, o.Share)
	}
}

func TestLookAtLatency(t *testing.T) {
	slower := func(o *Observation) { o.CanaryP90, o.BaselineP90 = 310*time.Millisecond, 100*time.Millisecond }
	slow := func(r *Release, o *Observation) { slowly(r, o, true, minSlowClients); slower(o) }
	for _, test := range []struct {
		name   string
		change func(r *Release, o *Observation)
		want   Verdict
		reason string
	}{
		{"slow", slow, Rollback, "90 % of the requests take up to 310ms, 100ms with the baseline; evidence 1.5e+10"},
		{"both are", func(r *Release, o *Observation) {
			slowly(r, o, true, 10)
			slowly(r, o, false, 190)
			slower(o)
		}, Advance, ""},
		{"it was only at first", func(r *Release, o *Observation) {
			slowly(r, o, true, minSlowClients)
			o.CanaryP90, o.BaselineP90 = 150*time.Millisecond, 100*time.Millisecond
		}, Continue, ""},
		{"that is not known", func(r *Release, o *Observation) { slowly(r, o, true, minSlowClients) }, Continue, ""},
		{"few clients", func(r *Release, o *Observation) {
			slowly(r, o, true, minSlowClients-1)
			slower(o)
		}, Continue, ""},
		{"with another share", func(r *Release, o *Observation) { slow(r, o); o.Share = 0.06 }, Continue, ""},
		{"in panic", func(r *Release, o *Observation) { slow(r, o); o.Blind = "panic" }, Continue, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := look(t, timedSettings, test.change)
			verify.That(t, got.Verdict == test.want && strings.Contains(got.Reason, test.reason), "got %+v, want %v, %q", got, test.want, test.reason)
		})
	}
}

// Each test of latency in a release needs more evidence than the one before.
func TestLaterTestsOfLatencyNeedMore(t *testing.T) {
	needed := func(earlier int) int {
		o := Observation{Share: 0.05, Judges: 1, CanaryP90: 3, BaselineP90: 1}
		r := NewRelease(timedSettings, o)
		for range earlier {
			o.Share += 0.01
			r.Decide(o)
		}
		o.Share = 0.5
		r.Decide(o)
		for n := 1; ; n++ {
			slowly(r, &o, true, 1)
			if d := r.Decide(o); d.Verdict == Rollback {
				return n
			}
		}
	}
	few, many := needed(0), needed(30)
	verify.That(t, few < many, "%d slow clients are enough in the second test, %d in the 32nd", few, many)
}

// What a caller could not act on is said again when it can.
func TestReconsider(t *testing.T) {
	look(t, settings, func(r *Release, o *Observation) {
		fail(r, o, true, 6)
		for i, want := range []Verdict{Rollback, Continue} {
			d := r.Decide(*o)
			verify.That(t, d.Verdict == want, "look %d: %+v", i+1, d)
		}
		r.RepeatRollback()
		verify.Equal(t, r.Decide(*o).Verdict, Rollback, "said again")
	})
}

func TestLimits(t *testing.T) {
	c, b := timedSettings.Limits(100)
	verify.That(t, c == 150 && b == 100, "limits %d and %d", c, b)
	for _, s := range []struct {
		Settings
		p90 time.Duration
	}{{settings, 100}, {timedSettings, 0}} {
		c, b := s.Limits(s.p90)
		verify.That(t, c == math.MaxInt64 && b == math.MaxInt64, "%+v: limits %v and %v, want none", s, c, b)
	}
}

func TestRecent(t *testing.T) {
	var r Recent
	for n := range minRecent {
		got := r.Quantile(0.9)
		verify.Require(t, got == 0, "%v of %d latencies", got, n)
		r.Add(time.Duration(n + 1))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.9: 90, 1: 100} {
		verify.Equal(t, r.Quantile(q), want, "quantile %v", q)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var adding sync.WaitGroup
	for range 4 {
		seed := random.Uint64()
		adding.Go(func() {
			random := rand.New(rand.NewPCG(seed, 0))
			for range 2 * keepRecent {
				r.Add(1000 + time.Duration(random.IntN(1000)))
			}
		})
	}
	adding.Wait()
	low, high := r.Quantile(0), r.Quantile(1)
	verify.That(t, low >= 1000 && high < 2000, "from %d to %d: the first latencies are still there", low, high)
	r.Reset()
	verify.Equal(t, r.Quantile(0.5), 0, "latencies after Reset")
}
