package simulation

import (
	"cmp"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/long"
	"sluice/test/proof"
	"sluice/test/verify"
)

// TestMain limits the test to one processor, so that simultaneous events have the same order
// in each run of a seed.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(400) // runs are short and leave a lot
	os.Exit(m.Run())
}

func simulate(t *testing.T, seed uint64) (w *world) {
	synctest.Test(t, func(*testing.T) {
		w = newWorld(seed)
		w.run()
	})
	return w
}

func variable(t *testing.T, name string) (n uint64, ok bool) {
	text := os.Getenv(name)
	if text == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	verify.Require(t, err == nil, "%s: %v", name, err)
	return n, true
}

func TestSeeds(t *testing.T) {
	if seed, ok := variable(t, "SLUICE_SEED"); ok {
		w := simulate(t, seed)
		t.Logf("seed %d:\n%s", seed, w.chronicle(0))
		verify.Equal(t, w.violation, "", "seed %d", seed)
		return
	}
	seeds, ok := variable(t, "SLUICE_SEEDS")
	switch {
	case ok:
	case raceEnabled:
		seeds = 50
	default:
		seeds = long.Count(t, uint64(60), 1000)
	}
	start := time.Now()
	all := make(counts)
	var firstTier lots
	for seed := range seeds {
		w := simulate(t, seed)
		if w.violation != "" {
			t.Fatalf("seed %d: %s\n%s\nAll of it: SLUICE_SEED=%d go test ./test/simulation -run TestSeeds -v", seed, w.violation, w.chronicle(60), seed)
		}
		for what, n := range w.counts {
			all[what] += n
		}
		firstTier.add(w.lots)
	}
	t.Logf("%d seeds in %v: %v", seeds, time.Since(start).Round(time.Millisecond), all)
	if !firstTier.fair() {
		t.Errorf("%v requests began with the first tier, want %.0f ± %.0f", firstTier.got, firstTier.expected, 6*math.Sqrt(firstTier.variance))
	}
	for _, what := range happenings {
		verify.That(t, all[what] != 0 || seeds < 500, "%s: never in %d seeds", what, seeds)
	}
}

// The proof that other tests have, test/proof, finds nothing where the simulation does. Where the
// code has a fault, this test shows whether it would be seen with them: see docs/dev/testing.md.
func TestProof(t *testing.T) {
	var total [proof.NumKinds]uint64
	seeds, ok := variable(t, "SLUICE_SEEDS")
	if !ok {
		seeds = long.Count(t, uint64(20), 200)
	}
	for seed := range seeds {
		var w *world
		synctest.Test(t, func(*testing.T) {
			w = newWorld(seed)
			w.unjudged = true
			w.run()
		})
		for _, line := range w.proven {
			t.Logf("seed %d: %s", seed, line)
		}
		for k := range total {
			total[k] += w.proof.Total(proof.Kind(k))
		}
	}
	for k, n := range total {
		verify.That(t, n == 0, "proof: %d violations of kind %s", n, proof.Kind(k))
	}
}

// A seed can be repeated: the same events happen at the same times in some two of a few plays.
// Not in any two, because simultaneous events have no order, and least with the source of Consul.
func TestSameSeedSameTrace(t *testing.T) {
	if raceEnabled {
		t.Skip("takes long")
	}
	const plays = 20
	for seed := range long.Count(t, uint64(6), 30) {
		w := simulate(t, seed)
		if len(w.consuls) > 0 {
			continue
		}
		traces := [][]line{w.sortedTrace()}
		for repeated := false; !repeated; {
			verify.Require(t, len(traces) != plays, "seed %d: %d plays with as many traces", seed, plays)
			again := simulate(t, seed).sortedTrace()
			repeated = slices.ContainsFunc(traces, func(trace []line) bool { return slices.Equal(trace, again) })
			traces = append(traces, again)
		}
	}
}

func (w *world) sortedTrace() []line {
	return slices.SortedFunc(slices.Values(w.trace), func(a, b line) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.text, b.text))
	})
}
