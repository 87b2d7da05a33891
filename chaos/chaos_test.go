package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"sluice/consultest"
)

// EnvSeeds is the environment variable with the number of seeds to run, and
// EnvFirstSeed the one with the first of them.
const (
	EnvSeeds     = "SLUICE_CHAOS_SEEDS"
	EnvFirstSeed = "SLUICE_CHAOS_FIRST_SEED"
)

const (
	fewApps  = 3 // that run between two faults
	moreApps = 9 // that come in the end

	// servedWithin is how soon after the end of a fault a new app is to be served.
	// Only long runs insist on it: a busy machine is no mistake. Others have it
	// within servedAtLast, which is less than who asks now and then would need.
	servedWithin = 2 * time.Second
	servedAtLast = 20 * time.Second
)

func TestChaos(t *testing.T) {
	seeds, first := number(t, EnvSeeds, 0), number(t, EnvFirstSeed, 1)
	var total tally
	for seed := first; seed < first+max(1, seeds); seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { runTrial(t, seed, seeds > 0, &total) })
	}
	t.Logf("%d seeds\n%v", max(1, seeds), &total)
}

func number(t *testing.T, env string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(env)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatalf("%s: %v", env, err)
	}
	return n
}

// trial is what one seed makes happen: all faults, one after the other, while
// requests go on.
type trial struct {
	*testing.T
	random  *rand.Rand
	cluster *cluster
	apps    *apps
	sluice  *sluice
	load    *load
}

func runTrial(t *testing.T, seed uint64, strict bool, total *tally) {
	begin := time.Now()
	c := startCluster(t)
	tr := &trial{T: t, random: rand.New(rand.NewPCG(seed, 0)), cluster: c, apps: startApps(t, c)}
	for range fewApps {
		tr.apps.startPassing()
	}
	tr.sluice = startSluice(t, c)
	tr.awaitCaughtUp()
	tr.load = tr.sluice.startLoad()
	t.Logf("%-36s took %v", "the start", time.Since(begin).Round(100*time.Millisecond))

	order := slices.Clone(faults)
	tr.random.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
	if testing.Short() {
		order = order[:3]
	}
	for _, f := range order {
		failed := tr.load.failed.Load()
		begin := time.Now()
		served := tr.happen(f)
		total.recovered(f.name, served)
		t.Logf("%-36s failed requests: %d, new app served after %v; all in all %v", f.name,
			tr.load.failed.Load()-failed, served.Round(time.Millisecond), time.Since(begin).Round(100*time.Millisecond))
		limit := servedAtLast
		if strict {
			limit = servedWithin
		}
		if served > limit {
			t.Errorf("%s: a new app was served after %v, want %v", f.name, served, limit)
		}
	}
	// As many apps as there ever were: nothing is on probation any more.
	for range moreApps {
		tr.apps.startPassing()
	}
	tr.awaitCaughtUp()
	consultest.Await(t, "the pool has nothing else", func() bool { return slices.Equal(tr.sluice.pool(true), tr.apps.running()) })
	tr.load.stop()
	total.requested(tr.load)
	sent, failed := tr.load.sent.Load(), tr.load.failed.Load()
	t.Logf("%d requests, %d failed, the slowest took %v; all in all %v", sent, failed,
		tr.load.slowest().Round(time.Millisecond), time.Since(begin).Round(100*time.Millisecond))
	if failed > 0 {
		t.Errorf("%d of %d requests failed", failed, sent)
	}
}

// happen lets a fault come and go. It returns how long after its end a new app
// was served. The end is when Consul is right again, which means that a
// consistent query is answered with the apps that run, the new one among them.
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
	ended := time.Now()
	consultest.Await(t.T, f.name+": the new app is served", func() bool { return t.load.heardOf(fresh) })
	served = time.Since(ended)
	t.awaitCaughtUp()
	for len(t.apps.running()) >= fewApps {
		t.apps.drainOldest()
	}
	t.awaitCaughtUp()
	t.apps.startPassing()
	t.awaitCaughtUp()
	return served
}

// last waits while a fault goes on.
func (t *trial) last(d time.Duration) { time.Sleep(d) }

// awaitCaughtUp waits until the catalog and the pool are the apps that run.
func (t *trial) awaitCaughtUp() {
	t.Helper()
	consultest.Await(t.T, "the catalog equals the apps", func() bool { return t.cluster.lists(t.apps.running()) })
	consultest.Await(t.T, "the pool equals the catalog", func() bool { return slices.Equal(t.sluice.pool(false), t.apps.running()) })
}
