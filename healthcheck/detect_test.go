package healthcheck

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/test/balancertest"
	"sluice/test/long"
	"sluice/test/verify"
)

// comparing are settings with outlier detection only at intervals.
func comparing() Settings {
	s := passiveSettings()
	s.Passive.ConsecutiveFailures = 0
	s.Passive.SuccessRate = &SuccessRate{Below: 0.99}
	s.Passive.Latency = &Latency{Factor: 3, Above: 50 * time.Millisecond}
	return s
}

// failing returns outcomes of which one peer's fail with this probability of so many in ten.
func failing(bad, inTen int) func(peer, request int) balancer.Outcome {
	return func(peer, request int) balancer.Outcome {
		if peer == bad && request%10 < inTen {
			return internal
		}
		return fine
	}
}

// interval sends requests to peers 0 and up, as far as they get any, and lets an interval pass.
func (f *fixture) interval(peers, requests int, outcome func(peer, request int) balancer.Outcome) {
	f.t.Helper()
	for n := range peers {
		for r := range requests {
			if !f.request(n, outcome(n, r)) {
				break
			}
		}
	}
	pass(10 * time.Second)
}

// factors returns the factors of the weights of peers 0 and up.
func (f *fixture) factors(peers int) (factors []float64) {
	for n := range peers {
		by, _ := f.peer(n).Factor()
		factors = append(factors, by)
	}
	return factors
}

// A peer that fails more often than the others loses weight step by step, is ejected, and gets its
// weight back in the same steps. It says why, since when, and until when.
func TestGradedLossOfWeight(t *testing.T) {
	s := comparing()
	s.Passive.Ejection = 9 * time.Second // it returns within an interval
	bubble(t, s, 3, func(t *testing.T, f *fixture) {
		f.events()
		f.interval(3, 100, failing(2, 3))
		verify.Slices(t, f.factors(3), []float64{1, 1, 0.5}, "factors")
		until := time.Now().Add(10 * time.Second).UTC().Format(time.RFC3339)
		want := "weight: 30 of 100 requests failed, 0 of 200 at the other peers; 1/2 of its weight for 10s until " + until
		verify.Slices(t, f.peer(2).Reasons(), []string{want}, "reasons")
		verify.Slices(t, f.events(), []string{"star-00002: up → warming: " + want}, "events")
		since := f.peer(2).Since()
		verify.That(t, time.Since(since) < time.Second, "warming since %v, it is %v", since, time.Now())

		f.interval(3, 100, failing(2, 3))
		f.interval(3, 100, failing(2, 3))
		verify.Slices(t, f.factors(3), []float64{1, 1, 0.125}, "factors")
		verify.Equal(t, f.peer(2).Since(), since, "since")
		verify.That(t, f.events() == nil, "a step is a change of state")
		verify.Equal(t, f.checker.Stats().Ejections[CauseSuccessRate], 0, "ejections")
		f.interval(3, 100, failing(2, 3))
		verify.Equal(t, f.peer(2).State(), balancer.StateEjected, "state")
		verify.Equal(t, f.checker.Stats().Ejections[CauseSuccessRate], 1, "ejections")
		why := f.peer(2).Reasons()
		verify.That(t, len(why) == 1 && strings.HasPrefix(why[0], "ejected: 30 of 100 requests failed, 0 of 200 at the other peers; for 9s until "), "reasons %q", why)

		want = "1/8 of its weight for 10s until "
		f.interval(2, 100, failing(2, 3))
		verify.Slices(t, f.factors(3), []float64{1, 1, 0.125}, "factors after the ejection")
		why = f.peer(2).Reasons()
		verify.That(t, len(why) == 1 && strings.Contains(why[0], want), "reasons after the ejection %q", why)
		for _, factor := range []float64{0.25, 0.5, 1} {
			f.interval(3, 100, failing(2, 0))
			verify.Slices(t, f.factors(3), []float64{1, 1, factor}, "factors")
		}
		verify.That(t, f.peer(2).State() == balancer.StateUp && f.peer(2).Reasons() == nil, "%v in the end, reasons %q", f.peer(2).State(), f.peer(2).Reasons())
		f.interval(3, 100, failing(2, 0))
		verify.Slices(t, f.factors(3), []float64{1, 1, 1}, "factors in the end")
	})
}

func TestSlowPeersLoseWeight(t *testing.T) {
	bubble(t, comparing(), 4, func(t *testing.T, f *fixture) {
		slow := func(usual, slow time.Duration) func(peer, request int) balancer.Outcome {
			return func(peer, request int) balancer.Outcome {
				latency := usual
				switch {
				case peer == 3 && request%2 == 0:
					latency = slow
				case request%10 == 0: // a few slow answers do not count
					latency = 5 * time.Second
				}
				return balancer.Outcome{Class: balancer.OutcomeOK, Latency: latency}
			}
		}
		f.interval(4, 100, slow(20*time.Millisecond, 58*time.Millisecond)) // less than 3 × slower
		f.interval(4, 100, slow(time.Millisecond, 45*time.Millisecond))    // quick all the same
		verify.Slices(t, f.factors(4), []float64{1, 1, 1, 1}, "factors")
		f.interval(4, 100, slow(20*time.Millisecond, 100*time.Millisecond))
		verify.Slices(t, f.factors(4), []float64{1, 1, 1, 0.5}, "factors")
		why := f.peer(3).Reasons()[0]
		verify.That(t, strings.HasPrefix(why, "weight: 50 of 100 answers took more than ") && strings.Contains(why, "ms, 30 of 300 at the other peers; 1/2 of its weight for 10s until "), "reason %q", why)
	})
}

// At most MaxEjected of the peers lose weight, the worst first.
func TestMaxEjectedLoseWeight(t *testing.T) {
	bubble(t, comparing(), 8, func(t *testing.T, f *fixture) {
		bad := func(peer, request int) balancer.Outcome {
			if peer < 3 && request%10 < 4+peer {
				return internal
			}
			return fine
		}
		f.interval(8, 200, bad)
		verify.Slices(t, f.factors(8), []float64{0.5, 0.5, 0.5, 1, 1, 1, 1, 1}, "factors")
		f.interval(8, 200, failing(0, 0))
		s := comparing()
		s.Passive.MaxEjected = 0.3
		f.reconfigure(s)
		f.interval(8, 200, bad)
		verify.Slices(t, f.factors(8), []float64{1, 0.5, 0.5, 1, 1, 1, 1, 1}, "factors")
	})
}

// With other settings all weights are back, and a reload does not put off the next step.
func TestReloadsOfComparisons(t *testing.T) {
	bubble(t, comparing(), 3, func(t *testing.T, f *fixture) {
		f.interval(3, 100, failing(1, 5))
		time.Sleep(9 * time.Second)
		f.reconfigure(comparing())
		pass(2 * time.Second)
		verify.Slices(t, f.factors(3), []float64{1, 1, 1}, "factors after an interval with a reload")
		pass(8*time.Second - time.Millisecond)
		f.interval(3, 100, failing(1, 5))
		verify.Slices(t, f.factors(3), []float64{1, 0.5, 1}, "factors")
		f.reconfigure(passiveSettings())
		synctest.Wait()
		verify.Slices(t, f.factors(3), []float64{1, 1, 1}, "factors without comparisons")
		verify.Equal(t, f.peer(1).State(), balancer.StateUp, "state")
	})
}

// A peer that leaves, and returns before its last request has ended, has the weight that it had, as
// it stays ejected: neither does the loss end by that, nor does a good interval take weight.
func TestLossOfWeightOutlivesADrain(t *testing.T) {
	bubble(t, comparing(), 3, func(t *testing.T, f *fixture) {
		for range 3 {
			f.interval(3, 100, failing(2, 3))
		}
		verify.Slices(t, f.factors(3), []float64{1, 1, 0.125}, "factors")
		bad := f.peer(2)
		var held balancer.Token
		for held.Peer != bad {
			token := verify.Result(f.Pick(nil)).Must(t)
			if token.Peer != bad {
				token.Done(fine)
			}
			held = token
		}
		leaveAndReturn := func(meanwhile func()) {
			f.Apply(instances(2))
			synctest.Wait()
			meanwhile()
			f.Apply(instances(3))
			synctest.Wait()
			verify.Equal(t, f.peer(2), bad, "the peer that has returned")
		}
		leaveAndReturn(func() {})
		verify.Slices(t, f.factors(3), []float64{1, 1, 0.125}, "factors after the return")
		f.interval(3, 100, failing(2, 0))
		verify.Slices(t, f.factors(3), []float64{1, 1, 0.25}, "factors after a good interval")
		leaveAndReturn(func() { f.reconfigure(passiveSettings()); synctest.Wait() })
		verify.Slices(t, f.factors(3), []float64{1, 1, 1}, "factors without the comparison")
		held.Done(fine)
	})
}

// Where loss of weight meets ejection, drains, weights, checks, slow start, panic, probation, sets
// and reloads: the weight changes by one step at most in an interval, what a peer says fits its
// state, and all is well again once nothing fails.
func TestGradedLossMeetsEverything(t *testing.T) {
	for round := range long.Count(t, 3, 6) {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			s := comparing()
			s.Passive.ConsecutiveFailures = 8
			bubble(t, s, 0, func(t *testing.T, f *fixture) { meetEverything(t, f, s) })
		})
	}
}

func meetEverything(t *testing.T, f *fixture, s Settings) {
	random := seeded(t).random
	const most = 6
	counts := make(map[string]int)
	set := instances(most)
	var bad [most]int
	before := make(map[*balancer.Peer]float64)
	check := func() {
		t.Helper()
		for _, p := range f.Snapshot().All {
			by, _ := p.Factor()
			was, known := before[p]
			verify.That(t, slices.Contains([]float64{1, 0.5, 0.25, 0.125}, by), "%v has the factor %v", p, by)
			verify.That(t, !known || by == 1 || by == was || by == 2*was || by == was/2, "%v has the factor %v after %v", p, by, was)
			says := slices.ContainsFunc(p.Reasons(), func(line string) bool {
				return strings.HasPrefix(line, "weight: ") && strings.Contains(line, fmt.Sprintf("; 1/%.0f of its weight for 10s until ", 1/by))
			})
			verify.That(t, says == (by < 1 && !p.Has(balancer.ReasonEjected)), "%v is %v with the factor %v: %q", p, p.State(), by, p.Reasons())
			verify.That(t, by == 1 || p.State() != balancer.StateUp, "%v is up with the factor %v", p, by)
			if p.State() == balancer.StateEjected {
				counts["ejected"]++
			}
			counts[fmt.Sprint(by)]++
			before[p] = by
		}
		if f.Snapshot().Panic {
			counts["panic"]++
		}
	}
	for range 120 {
		n := random.IntN(len(set))
		switch random.IntN(12) {
		case 0, 1:
			bad[n] = random.IntN(6)
		case 2:
			bad = [most]int{}
		case 3:
			set[n].Weight = 1 + random.IntN(5)
		case 4:
			set[n].Status = []discovery.Status{discovery.StatusPassing, discovery.StatusCritical}[random.IntN(2)]
		case 5:
			set[n].Probation = []time.Time{{}, time.Now()}[random.IntN(2)]
		case 6:
			set[n].Tags = [][]string{nil, {"a"}}[random.IntN(2)]
		case 7:
			if len(set) > 2 {
				set = slices.Delete(set, n, n+1)
			}
		case 8:
			set = instances(most)
		case 9:
			balancertest.Drain(f.Pool, "work", set[n].Key())
		case 10:
			weight := random.IntN(5)
			f.SetOrders(func(discovery.Instance) balancer.Orders { return balancer.Orders{Weight: weight} })
		case 11:
			f.options.PanicThreshold = random.Float64()
			f.options.SlowStart = balancer.SlowStart{Window: time.Duration(random.IntN(2)) * 15 * time.Second, Aggression: 1, MinWeight: 0.1}
			f.options.Groups, f.options.Tiers = nil, nil
			if random.IntN(2) == 0 {
				f.options.Tiers = []balancer.Selector{{Tags: []string{"a"}}}
			} else if random.IntN(2) == 0 {
				f.options.Groups = []balancer.GroupSelector{{Name: "a", Selector: balancer.Selector{Tags: []string{"a"}}}}
			}
			f.reconfigure(s)
		}
		f.Apply(slices.Clone(set))
		for range 600 {
			token, err := f.Pick(nil)
			if err != nil {
				break
			}
			o := fine
			if i := token.Peer.ID.ID; random.IntN(10) < bad[i[len(i)-1]-'0'] {
				o = internal
			}
			token.Done(o)
		}
		pass(10 * time.Second)
		check()
	}
	for _, what := range []string{"0.5", "0.25", "0.125"} {
		verify.That(t, counts[what] > 0, "the test does not reach %s: %v", what, counts)
	}
	t.Logf("%v", counts)
	f.Apply(instances(most))
	balancertest.Drain(f.Pool, "")
	f.options.Groups, f.options.Tiers = nil, nil
	f.reconfigure(s)
	for range 40 { // the longest ejection lasts a minute
		pass(10 * time.Second)
	}
	for _, p := range f.Snapshot().All {
		verify.That(t, p.State() == balancer.StateUp && p.Reasons() == nil, "%v is %v in the end: %q", p, p.State(), p.Reasons())
	}
}
