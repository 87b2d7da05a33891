package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sluice/bench/quality/scenario"
	"sluice/test/long"
	"sluice/test/verify"
)

// picking counts what another chooser picks.
type picking struct {
	chooser
	picks []int
}

func (p *picking) pick(now time.Duration, r *scenario.Request) int {
	i := p.chooser.pick(now, r)
	p.picks[i]++
	return i
}

// playWeighted simulates the named scenario with the default policy, at this part of what the first
// len(weights) peers can do. It returns each peer's requests as a multiple of what its weight
// gives.
func playWeighted(name string, length scenario.Length, d scenario.Distribution, busy float64, weights []int) (score, []float64) {
	var s scenario.Scenario
	for _, s = range scenario.All(1, length, d) {
		if s.Name == name {
			break
		}
	}
	s.Peers = s.Peers[:len(weights)]
	s.Rates = []scenario.Rate{{PerSecond: busy * 100 * float64(len(weights))}} // each does 100 a second
	var replica *picking
	for i := range s.Peers {
		s.Peers[i].Weight = weights[i]
	}
	scored := play(&s, s.Requests(), rival{new: func(peers []scenario.Peer, random *rand.Rand) chooser {
		replica = &picking{newOwn(PolicyEWMA, peers, random), make([]int, len(peers))}
		return replica
	}})
	shares := make([]float64, len(weights))
	for i, w := range weights {
		shares[i] = float64(replica.picks[i]) / float64(sumOf(replica.picks)) / float64(w) * float64(sumOf(weights))
	}
	return scored, shares
}

// lighter returns n weights, of which the last is 1/by of the others.
func lighter(n, by int) []int {
	weights := slices.Repeat([]int{by}, n)
	weights[n-1] = 1
	return weights
}

// While weights differ, ewma is as good as with equal ones: at low load shares follow the weights,
// and no peer of less weight costs the others their choice.
func TestQualityWithDifferentWeights(t *testing.T) {
	long.Sequential(t)
	t.Parallel()
	length := scenario.Short
	if long.All() {
		length = scenario.Long
	}
	for _, busy := range []float64{.1, .3} {
		for _, weights := range [][]int{{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, lighter(10, 2), lighter(10, 8), lighter(3, 2), lighter(3, 8)} {
			_, shares := playWeighted("equal", length, scenario.Constant, busy, weights)
			moved := 0.
			for i, w := range weights {
				moved += math.Abs(shares[i]-1) * float64(w) / 2 / float64(sumOf(weights))
			}
			t.Logf("weights %v, %.0f %% busy: shares of %.2f of the weights, %.1f %% of the requests elsewhere", weights, busy*100, shares, moved*100)
			verify.That(t, moved < .06, "weights %v, %.0f %% busy: %.1f %% of the requests are not where the weights want them: %.2f of them", weights, busy*100, moved*100, shares)
		}
	}
	for _, c := range []struct {
		name string
		n    int
		busy float64
	}{{"equal", 10, .6}, {"speeds", 10, .6}, {"antagonist", 10, .6}, {"one slow", 10, .6}, {"equal", 10, .85}, {"equal", 5, .6}} {
		for _, d := range []scenario.Distribution{scenario.Exponential, scenario.Constant} {
			equal, _ := playWeighted(c.name, length, d, c.busy, lighter(c.n, 1))
			for by, limit := range map[int]float64{2: 1.25, 8: 1.35} { // the others do its work
				got, shares := playWeighted(c.name, length, d, c.busy, lighter(c.n, by))
				what := fmt.Sprintf("%s, %v, %d peers %.0f %% busy, one has 1/%d of its weight", c.name, d, c.n, c.busy*100, by)
				t.Logf("%s: %s, %s with equal weights; its share %.2f of the weight", what, got.inMilliseconds(), equal.inMilliseconds(), shares[c.n-1])
				verify.That(t, got.p99 <= equal.p99*limit, "%s: p99 is %.3f s, want at most %.2f x %.3f s", what, got.p99, limit, equal.p99)
			}
		}
	}
	// Three peers 85 % busy, one at an eighth: the weights want more of the two others than
	// they can do.
	got, shares := playWeighted("equal", length, scenario.Exponential, .85, lighter(3, 8))
	t.Logf("three peers, one has 1/8 of its weight: %s; shares of %.2f of the weights", got.inMilliseconds(), shares)
	verify.That(t, got.p99 < 1, "three peers, one has 1/8 of its weight: p99 is %.3f s", got.p99)
}
