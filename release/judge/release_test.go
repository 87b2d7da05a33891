package judge

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/config/units"
	"sluice/test/long"
	"sluice/test/verify"
)

// service is a simulated service in the middle of a release. Each client has a point from
// 0 to 1 and uses the canary while that is below the share.
type service struct {
	random *rand.Rand
	points []float64
	broken []bool // clients that fail half of the time, with both versions

	everywhere float64 // share of requests that fail with both versions
	extra      float64 // share of requests that fail with the canary only
	timed      *timing // nil: latencies are not simulated

	share            float64
	now              time.Time
	canary, baseline Counts
	canaryFailures   int
}

func newService(seed uint64, clients int, brokenShare, everywhere, extra float64) *service {
	s := &service{random: rand.New(rand.NewPCG(seed, 1)), everywhere: everywhere, extra: extra}
	for range clients {
		s.points = append(s.points, s.random.Float64())
		s.broken = append(s.broken, s.random.Float64() < brokenShare)
	}
	return s
}

// request is a request of a random client.
func (s *service) request(r *Release) {
	n := s.random.IntN(len(s.points))
	canary := s.points[n] < s.share
	failed := s.random.Float64() < s.everywhere || s.broken[n] && s.random.IntN(2) == 0 || canary && s.random.Float64() < s.extra
	arm := &s.baseline
	if canary {
		arm = &s.canary
	}
	arm.Requests++
	if s.timed != nil && !failed {
		s.time(r, n, canary)
	}
	if failed {
		arm.Failures++
		r.Failed(uint64(n)+1, canary, s.share)
		if canary {
			s.canaryFailures++
		}
	}
}

func (s *service) observe() Observation {
	o := Observation{Time: s.now, Share: s.share, Canary: s.canary, Baseline: s.baseline, Judges: 1}
	if s.timed != nil {
		o.CanaryP90, o.BaselineP90 = s.timed.p90[0], s.timed.p90[1]
	}
	return o
}

// run runs a release through steps of 10 minutes at perSecond requests. It returns what ended it.
func (s *service) run(settings Settings, perSecond int) Decision {
	s.share = float64(settings.Steps[0])
	r := NewRelease(settings, s.observe())
	for range 4 * 600 {
		if s.timed != nil {
			s.timed.begin(s.now)
		}
		for range perSecond {
			s.request(r)
		}
		s.now = s.now.Add(time.Second)
		if s.timed != nil && s.now.Unix()%20 == 0 {
			s.measure(settings)
		}
		switch d := r.Decide(s.observe()); d.Verdict {
		case Rollback:
			return d
		case Advance:
			if s.share = d.Share; s.share == 1 {
				return d
			}
		}
	}
	return Decision{Wait, s.share, "the release has not ended"}
}

var settings = Settings{Steps: []units.Ratio{0.05, 0.25, 0.5, 1}, Step: 10 * time.Minute, MaxWait: time.Hour}

// Canaries that are no worse are not rolled back: 1 in 1,000 at most, whatever fails. Failures
// of single clients, which go on, do not count again.
func TestFalseRollbacks(t *testing.T) {
	fewRollbacks(t, settings, long.Count(t, 100, 1000), map[string]func(seed uint64) *service{
		"broken clients":     func(seed uint64) *service { return newService(seed, 2000, 0.01, 0.001, 0) },
		"few clients":        func(seed uint64) *service { return newService(seed, 200, 0.05, 0, 0) },
		"nothing ever fails": func(seed uint64) *service { return newService(seed, 2000, 0, 0, 0) },
	})
}

// fewRollbacks runs releases of services whose canary is no worse.
func fewRollbacks(t *testing.T, settings Settings, releases int, services map[string]func(seed uint64) *service) {
	for name, make := range services {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rollbacks, unfinished := 0, 0
			for seed := range releases {
				switch d := make(uint64(seed)).run(settings, 10); {
				case d.Verdict == Rollback:
					rollbacks++
					t.Logf("seed %d: %s", seed, d.Reason)
				case d.Share < 1:
					unfinished++
				}
			}
			t.Logf("%d releases: %d rolled back, %d not complete after 40 minutes", releases, rollbacks, unfinished)
			// Of seeds that are fixed, so it is the same each time.
			verify.That(t, rollbacks <= max(1, releases/1000), "%d of %d rolled back, want 1 in 1,000", rollbacks, releases)
		})
	}
}

// Failures by the test's own null hypothesis, without end.
func TestEvidenceIsAWagerAtFairOdds(t *testing.T) {
	long.Sequential(t)
	const players, failures = 3000, 500
	random := rand.New(rand.NewPCG(7, 7))
	for _, share := range []float64{0.01, 0.05, 0.5, 0.9} {
		reached := 0
		for range players {
			var e Evidence
			for range failures {
				if e.Add(random.Float64() < share, share); e.Value() >= 100 {
					reached++
					break
				}
			}
		}
		got := float64(reached) / players
		verify.That(t, got <= 0.01, "share %v: %v of the players win a hundredfold, want at most 0.01", share, got)
	}
}

// Worse canaries are rolled back, after few failed requests.
func TestWorseCanariesAreRolledBack(t *testing.T) {
	long.Sequential(t)
	for _, test := range []struct {
		clients, perSecond int
		extra              float64
		failed             int // median of failed requests of the canary until the rollback
	}{
		{2000, 100, 1, 12}, {2000, 100, 0.5, 12}, {2000, 100, 0.05, 20},
		{20_000, 1000, 0.05, 20}, {20_000, 1000, 0.01, 50},
	} {
		const releases = 40
		var failed []int
		for seed := range releases {
			s := newService(uint64(seed), test.clients, 0.01, 0.001, test.extra)
			d := s.run(settings, test.perSecond)
			verify.That(t, d.Verdict == Rollback, "seed %d: %d clients, %v extra failures: %+v", seed, test.clients, test.extra, d)
			failed = append(failed, s.canaryFailures)
		}
		slices.Sort(failed)
		t.Logf("%d clients, %d requests a second, %v extra failures: %d failed requests at the median, %d at most",
			test.clients, test.perSecond, test.extra, failed[releases/2], failed[releases-1])
		verify.That(t, failed[releases/2] <= test.failed, "%d clients, %v extra failures: %d failed requests at the median, want at most %d", test.clients, test.extra, failed[releases/2], test.failed)
	}
}

// look returns the decision after a step's time, for counts since the begin.
func look(t *testing.T, s Settings, change func(r *Release, o *Observation)) Decision {
	t.Helper()
	first := Observation{Time: time.Unix(1000, 0), Share: 0.05, Canary: Counts{7000, 70}, Baseline: Counts{90_000, 900}, Judges: 1}
	r := NewRelease(s, first)
	o := first
	o.Time = o.Time.Add(s.Step)
	o.Canary.Requests += minRequests
	o.Baseline.Requests += 20 * minRequests
	change(r, &o)
	return r.Decide(o)
}

// fail adds failures of clients, which are new.
func fail(r *Release, o *Observation, canary bool, clients int) {
	for range clients {
		client := uint64(len(r.failures.counted) + 1)
		r.Failed(client, canary, o.Share)
		if canary {
			o.Canary.Failures++
		} else {
			o.Baseline.Failures++
		}
	}
}

func TestLook(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(r *Release, o *Observation)
		want   Verdict
		share  float64
		reason string
	}{
		{"all is well", func(*Release, *Observation) {}, Advance, 0.25, "0 % of 500 requests of the canary fail"},
		{"too early", func(_ *Release, o *Observation) { o.Time = o.Time.Add(-time.Second) }, Continue, 0, ""},
		{"silence", func(_ *Release, o *Observation) { o.Canary.Requests-- }, Continue, 0, ""},
		{"silence for long", func(_ *Release, o *Observation) {
			o.Canary.Requests--
			o.Time = o.Time.Add(2 * time.Hour)
		}, Wait, 0.05, "the canary had 499 requests"},
		{"no step is left", func(_ *Release, o *Observation) { o.Share = 1 }, Continue, 0, ""},
		{"the share has just changed", func(_ *Release, o *Observation) { o.Share = 0.1 }, Continue, 0, ""},
		{"worse", func(r *Release, o *Observation) { fail(r, o, true, 6) }, Rollback, 0, "1.2 % of 500 requests fail, 0 % of 10000 requests of the baseline"},
		{"worse, before the step is over", func(r *Release, o *Observation) {
			fail(r, o, true, 6)
			o.Time = o.Time.Add(1 - settings.Step)
		}, Rollback, 0, ""},
		{"both fail", func(r *Release, o *Observation) {
			fail(r, o, true, 6)
			fail(r, o, false, 120)
		}, Advance, 0.25, ""},
		{"worse, in panic", func(r *Release, o *Observation) {
			fail(r, o, true, 6)
			o.Blind = "panic"
			o.Time = o.Time.Add(2 * time.Hour)
		}, Wait, 0.05, "panic"},
		{"suspicious", func(r *Release, o *Observation) { fail(r, o, true, 3) }, Continue, 0, ""},
		{"few clients", func(r *Release, o *Observation) {
			fail(r, o, true, minFailingClients-1)
			r.failures.evidence.logs[0] = 100
		}, Continue, 0, ""},
		{"one client without end", func(r *Release, o *Observation) {
			for range 1000 {
				r.Failed(4711, true, o.Share)
			}
			o.Canary.Failures += 400
		}, Advance, 0.25, ""},
		{"enough for one replica of two", func(r *Release, o *Observation) {
			fail(r, o, true, minFailingClients)
			o.Judges = 1000
		}, Continue, 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := look(t, settings, test.change)
			verify.That(t, got.Verdict == test.want && got.Share == test.share && strings.Contains(got.Reason, test.reason), "got %+v, want %v, share %v, %q", got, test.want, test.share, test.reason)
		})
	}
}

// Both arms fail alike in the first step and not at all in the next, with another share: all
// requests together would make one look 1.9 times as bad as the other.
func TestRatesAreComparedUnderOneShare(t *testing.T) {
	first := Observation{Share: 0.5, Judges: 1}
	r := NewRelease(settings, first)
	o := first
	o.Canary, o.Baseline = Counts{100_000, 1000}, Counts{100_000, 1000}
	r.Decide(o)
	o.Share = 0.05
	r.Decide(o)
	o.Canary.Requests += 5000
	o.Baseline.Requests += 95_000
	for client := range uint64(40) { // which some of the failures may be by chance
		r.Failed(client, true, o.Share)
	}
	verify.Require(t, r.Evidence() > enough, "evidence %v", r.Evidence())
	d := r.Decide(o)
	verify.That(t, d.Verdict == Continue, "both fail alike: %+v", d)
	o.Canary.Requests += 5000
	o.Canary.Failures += 2000
	o.Baseline.Requests += 95_000
	d = r.Decide(o)
	verify.That(t, d.Verdict == Rollback, "the canary fails more often under this share: %+v", d)
}

// A verdict is returned once.
func TestVerdictsAreReturnedOnce(t *testing.T) {
	for _, failing := range []int{0, 6} {
		look(t, settings, func(r *Release, o *Observation) {
			fail(r, o, true, failing)
			o.Canary.Requests--
			o.Time = o.Time.Add(2 * time.Hour)
			d := r.Decide(*o)
			verify.Require(t, d.Verdict != Continue, "%d failing: nothing at the first look", failing)
			o.Time = o.Time.Add(time.Minute)
			d = r.Decide(*o)
			verify.That(t, d.Verdict == Continue, "%d failing: again: %+v", failing, d)
		})
	}
}

// A client that fails again is no more evidence, on either side.
func TestAClientCountsOnce(t *testing.T) {
	for _, canary := range []bool{true, false} {
		r := NewRelease(settings, Observation{})
		r.Failed(7, canary, 0.5)
		first := r.Evidence()
		r.Failed(7, canary, 0.5)
		verify.That(t, first != 1 && r.Evidence() == first,
			"canary %v: evidence %v after one failure, %v after two of the same client", canary, first, r.Evidence())
	}
}

// The memory of clients is bounded, and an arm that is certain proves nothing.
func TestBounds(t *testing.T) {
	r := NewRelease(settings, Observation{})
	for client := range uint64(maxClients + 10) {
		r.Failed(client+1, true, 1)
		r.Failed(client+1, false, 0)
	}
	verify.That(t, len(r.failures.counted) == maxClients && r.Evidence() == 1,
		"%d clients, evidence %v", len(r.failures.counted), r.Evidence())
	r = NewRelease(Settings{PerRequest: true}, Observation{})
	for client := range uint64(3*maxClients + 1) {
		r.Failed(client+1, client >= 3*maxClients, 0.5)
	}
	verify.That(t, len(r.failures.counted) <= maxClients && r.failures.clients == [2]int{3 * maxClients, 1}, "of requests: %d remembered, %v counted", len(r.failures.counted), r.failures.clients)
	var e Evidence
	for range 100_000 {
		e.Add(true, 0.001)
	}
	v := e.Value()
	verify.That(t, !math.IsInf(v, 0) && !math.IsNaN(v) && v >= enough, "evidence %v", v)
}
