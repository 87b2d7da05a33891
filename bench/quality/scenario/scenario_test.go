package scenario

import (
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"sluice/test/long"
	"sluice/test/verify"
)

const seed = 1

func TestTheSameSeedGivesTheSameScenarios(t *testing.T) {
	long.Sequential(t)
	for _, length := range []Length{Long, Short} {
		for _, d := range []Distribution{Exponential, Constant} {
			first, second, other := All(seed, length, d), All(seed, length, d), All(seed+1, length, d)
			verify.That(t, reflect.DeepEqual(first, second), "the scenarios differ")
			verify.That(t, !reflect.DeepEqual(first, other), "another seed has the same scenarios")
			for i := range first {
				if length == Long && i > 0 {
					break
				}
				a, b, c := first[i].Requests(), second[i].Requests(), other[i].Requests()
				verify.That(t, slices.Equal(a, b), "%s: the requests differ", first[i].Name)
				verify.That(t, !slices.Equal(a, c), "%s: another seed has the same requests", first[i].Name)
				for n, r := range a {
					at := r.At
					r.At = 0
					verify.Require(t, r == first[i].Request(uint64(n)), "%s: request %d differs", first[i].Name, n)
					verify.Require(t, n == 0 || at >= a[n-1].At && at < first[i].Duration, "%s: request %d at %v", first[i].Name, n, at)
				}
			}
		}
	}
}

// within checks that the number of hits is within five standard deviations of a binomial
// distribution: it holds for the seed, so it holds always.
func within(t *testing.T, hits, n int, p float64, format string, args ...any) {
	t.Helper()
	deviation := math.Sqrt(float64(n) * p * (1 - p))
	verify.That(t, math.Abs(float64(hits)-float64(n)*p) <= 5*deviation+1, format+": %d of %d, want %.1f %%", append(args, hits, n, p*100)...)
}

func TestRatesSharesAndMeans(t *testing.T) {
	long.Sequential(t)
	for _, d := range []Distribution{Exponential, Constant} {
		for _, s := range All(seed, Long, d) {
			all := s.Requests()
			due := 0.
			for at := time.Duration(0); at < s.Duration; at += 10 * time.Millisecond {
				due += s.RateAt(at) / 100
			}
			verify.That(t, math.Abs(float64(len(all))-due) <= 5*math.Sqrt(due), "%s: %d requests, want %.0f", s.Name, len(all), due)
			byRoute, byReplica := make([]int, len(s.Routes)), make([]int, s.Replicas)
			early := 0
			var work, expected float64
			for _, r := range all {
				byRoute[r.Route]++
				byReplica[r.Replica]++
				if r.At < s.Duration/2 {
					early++
				}
				work += r.Work.Seconds()
			}
			for i, route := range s.Routes {
				within(t, byRoute[i], len(all), route.Share, "%s, route %s", s.Name, route.Name)
				for _, w := range route.Work {
					expected += route.Share * w.Share * w.Mean.Seconds()
				}
			}
			for i, n := range byReplica {
				within(t, n, len(all), 1/float64(s.Replicas), "%s, replica %d", s.Name, i)
			}
			if len(s.Rates) == 1 {
				within(t, early, len(all), .5, "%s, first half", s.Name)
			}
			mean := work / float64(len(all))
			verify.That(t, math.Abs(mean/expected-1) < .08, "%s: mean work %.4f s, want %.4f s", s.Name, mean, expected)
		}
	}
}

func TestServiceTimesHaveTheirDistribution(t *testing.T) {
	for _, d := range []Distribution{Exponential, Constant} {
		all := All(seed, Long, d)[0].Requests()
		above := 0
		for _, r := range all {
			if d == Constant {
				verify.Require(t, r.Work >= mean*9/10 && r.Work <= mean*11/10, "constant: %v", r.Work)
			}
			if r.Work > mean {
				above++
			}
		}
		within(t, above, len(all), map[Distribution]float64{Exponential: 1 / math.E, Constant: .5}[d], "%v: above the mean", d)
	}
}

func TestWorkEndsAsThePeerIsSlow(t *testing.T) {
	const ms = time.Millisecond
	p := Peer{Slots: 1, Slowness: []Interval{{100 * ms, 200 * ms, 2}, {300 * ms, 400 * ms, math.Inf(1)}, {500 * ms, Always, 4}}}
	for _, c := range []struct{ start, work, end time.Duration }{
		{0, 50 * ms, 50 * ms},
		{0, 100 * ms, 100 * ms},
		{0, 110 * ms, 120 * ms},
		{50 * ms, 110 * ms, 210 * ms},  // 50 before, 50 in 100, 10 after
		{150 * ms, 100 * ms, 275 * ms}, // 25 in 50, 75 after
		{250 * ms, 60 * ms, 410 * ms},  // 50, stands still, 10
		{350 * ms, 10 * ms, 410 * ms},
		{490 * ms, 20 * ms, 540 * ms},
		{600 * ms, 10 * ms, 640 * ms},
	} {
		verify.Equal(t, p.End(c.start, c.work), c.end, "work of %v at %v", c.work, c.start)
	}
	p.Answer = Wrong
	verify.Equal(t, p.End(ms, ms), ms, "an answer at once")
}

// Of what peers can do enough is left in each scenario, but for the ramp.
func TestDisturbancesLeaveEnough(t *testing.T) {
	for _, s := range All(seed, Long, Constant) {
		speed, n, busy, steps := 0., 0, 0, 0
		work := 0. // seconds for a request on average
		for _, r := range s.Routes {
			for _, w := range r.Work {
				work += r.Share * w.Share * w.Mean.Seconds()
			}
		}
		for i := range s.Peers {
			p := &s.Peers[i]
			for j, in := range p.Slowness {
				verify.That(t, in.From < in.To && in.By > 0 && (j == 0 || in.From >= p.Slowness[j-1].To), "%s: %+v", s.Name, p.Slowness)
			}
		}
		for at := time.Duration(0); at < s.Duration; at += 100 * time.Millisecond {
			now := 0.
			for i := range s.Peers {
				if p := &s.Peers[i]; p.Answer == Works {
					now += 1 / p.SlownessAt(at)
				}
			}
			speed, n, steps = speed+now, n+1, steps+1
			if len(s.Rates) == 1 && now*slots/work <= s.RateAt(at) {
				busy++
			}
		}
		t.Logf("%s: %.2f peers on average, too few in %.1f %% of the time", s.Name, speed/float64(n), 100*float64(busy)/float64(steps))
		verify.That(t, speed/float64(n) > .7*float64(len(s.Peers)), "%s: %.1f peers on average", s.Name, speed/float64(n))
		verify.That(t, float64(busy)/float64(steps) < .1, "%s: too few in %.1f %% of the time", s.Name, 100*float64(busy)/float64(steps))
	}
}

// A share is read in five seconds, of peers that are sound, by weight.
func TestSharesOfSoundPeers(t *testing.T) {
	s := Scenario{Duration: time.Minute, Peers: []Peer{{Weight: 3}, {}, {Starts: []time.Duration{20 * time.Second}}}}
	times := make([][]time.Duration, 3)
	for at := time.Duration(0); at < s.Duration; at += 10 * time.Millisecond {
		n := int(at/(10*time.Millisecond)) % 5
		i := []int{0, 0, 0, 1, 2}[n]
		if at < 30*time.Second && i == 2 { // gets nothing at first, nor for ten seconds after its start
			i = 0
		}
		if at >= 45*time.Second && at < 50*time.Second && i == 1 {
			i = 0
		}
		times[i] = append(times[i], at)
	}
	least, most := s.Shares(times)
	verify.Equal(t, least, 0, "least share")                      // of the second, from 45 s on
	verify.That(t, math.Abs(most-4./3) < .01, "most: %.2f", most) // of the first
	s.Peers[2].Slowness, s.Peers[1].Answer = []Interval{{0, Always, 2}}, Wrong
	_, most = s.Shares(times)
	verify.That(t, math.Abs(most-4./3) < .01, "most: %.2f", most)
}
