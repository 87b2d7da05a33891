package chaos

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/verify"
)

// EnvSeeds is the environment variable with the number of seeds to run, EnvFirstSeed that with the
// first seed.
const (
	EnvSeeds     = "SLUICE_CHAOS_SEEDS"
	EnvFirstSeed = "SLUICE_CHAOS_FIRST_SEED"
)

const (
	clusters = 6 // that run concurrently
	fewApps  = 3 // between two faults
	moreApps = 9 // started at the end

	// servedWithin is the limit for the time from the end of a fault until a new app
	// is served, in long runs. Short runs, which may be on a busy machine, have the
	// limit servedAtLast, which is less than a poll interval.
	servedWithin = 2 * time.Second
	servedAtLast = 20 * time.Second
)

// TestChaos runs all faults of each seed on one cluster. By default it runs one seed, with
// the faults shared among clusters that run concurrently.
func TestChaos(t *testing.T) {
	seeds, first := number(t, EnvSeeds, 0), number(t, EnvFirstSeed, 1)
	var total tally
	if seeds == 0 {
		long.Test(t)
		t.Run(fmt.Sprintf("seed %d", first), func(t *testing.T) {
			for n, faults := range shared(shuffled(random(first, 0)), clusters) {
				t.Run(fmt.Sprintf("cluster %d", n+1), func(t *testing.T) {
					t.Parallel()
					runTrial(t, faults, random(first, uint64(n+1)), servedAtLast, &total)
				})
			}
		})
	}
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			random := random(seed, 0)
			runTrial(t, shuffled(random), random, servedWithin, &total)
		})
	}
	t.Logf("%d seeds\n%v", max(1, seeds), &total)
}

func random(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }

func shuffled(random *rand.Rand) []fault {
	order := slices.Clone(faults)
	random.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
	return order
}

// shared shares the faults among clusters, so that all end at about the same time. It keeps their
// order.
func shared(order []fault, clusters int) [][]fault {
	shares, total := make([][]fault, clusters), make([]time.Duration, clusters)
	longest := slices.Clone(order)
	slices.SortStableFunc(longest, func(a, b fault) int { return cmp.Compare(b.usual, a.usual) })
	for _, f := range longest {
		n := slices.Index(total, slices.Min(total))
		shares[n], total[n] = append(shares[n], f), total[n]+f.usual
	}
	place := func(f fault) int { return slices.IndexFunc(order, func(o fault) bool { return o.name == f.name }) }
	for _, share := range shares {
		slices.SortFunc(share, func(a, b fault) int { return cmp.Compare(place(a), place(b)) })
	}
	return shares
}

func number(t *testing.T, env string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(env)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 32)
	verify.Require(t, err == nil, "%s: %v", env, err)
	return n
}

// trial is a sequence of faults under load.
type trial struct {
	*testing.T
	random  *rand.Rand
	cluster *cluster
	apps    *apps
	sluice  *sluice
	load    *load
}

// runTrial runs the faults. After each, a new app must be served within the limit.
func runTrial(t *testing.T, order []fault, random *rand.Rand, limit time.Duration, total *tally) {
	begin := time.Now()
	tr := &trial{T: t, random: random}
	t.Cleanup(func() { // below the logs of the agents
		if tr.sluice != nil {
			tr.sluice.repeat()
		}
	})
	c := startCluster(t)
	tr.cluster, tr.apps = c, startApps(t, c)
	for range fewApps {
		tr.apps.startPassing()
	}
	tr.sluice = startSluice(t, c)
	tr.awaitCaughtUp()
	tr.load = tr.sluice.startLoad()
	t.Logf("%-36s after %v", "the start", time.Since(begin).Round(100*time.Millisecond))

	for _, f := range order {
		failed := tr.load.failed.Load()
		begin := time.Now()
		served := tr.happen(f)
		total.recovered(f.name, served)
		t.Logf("%-36s failed requests: %d, new app served after %v; all in all %v", f.name,
			tr.load.failed.Load()-failed, served.Round(time.Millisecond), time.Since(begin).Round(100*time.Millisecond))
		if served > limit {
			t.Fail()
			tr.sluice.notice("%s: a new app was served after %v, want %v", f.name, served, limit)
		}
	}
	// With as many apps as before, no instance is on probation.
	for range moreApps {
		tr.apps.startPassing()
	}
	tr.awaitCaughtUp()
	consultest.Await(t, "the pool has nothing else", func() bool { return slices.Equal(tr.sluice.pool(true), tr.apps.running()) })
	tr.load.stop()
	total.requested(tr.load)
	sent, failed := tr.load.sent.Load(), tr.load.failed.Load()
	t.Logf("%d requests, %d failed, the slowest %v; total %v", sent, failed,
		tr.load.slowest().Round(time.Millisecond), time.Since(begin).Round(100*time.Millisecond))
	if failed > 0 {
		t.Fail()
		tr.sluice.notice("%d of %d requests failed", failed, sent)
	}
}

// happen runs a fault. It returns the time from its end until a new app was served, as far as this
// process ran. The end is when a consistent query of Consul returns exactly the running apps, with
// the new one.
func (t *trial) happen(f fault) (served time.Duration) {
	t.Helper()
	end := f.begin(t)
	t.apps.start()
	t.apps.stopOldest()
	t.last(f.lasts)
	end()
	right := func() bool { return t.cluster.lists(t.apps.running()) }
	consultest.Await(t.T, f.name+": Consul is right again", right)
	fresh := t.apps.startPassing()
	consultest.Await(t.T, f.name+": Consul has the new app", right)
	// The time is measured in polls: a machine that stands still, or has too much to do, delays
	// them too.
	consultest.Await(t.T, f.name+": the new app is served", func() bool {
		if t.load.heardOf(fresh) {
			return true
		}
		served += consultest.Poll
		return false
	})
	t.awaitCaughtUp()
	for len(t.apps.running()) >= fewApps {
		t.apps.drainOldest()
	}
	t.awaitCaughtUp()
	t.apps.startPassing()
	t.awaitCaughtUp()
	return served
}

func (t *trial) last(d time.Duration) { time.Sleep(d) }

// awaitCaughtUp waits until the catalog and the pool contain exactly the running apps.
func (t *trial) awaitCaughtUp() {
	t.Helper()
	consultest.Await(t.T, "the catalog equals the apps", func() bool { return t.cluster.lists(t.apps.running()) })
	consultest.Await(t.T, "the pool equals the catalog", func() bool { return slices.Equal(t.sluice.pool(false), t.apps.running()) })
}
