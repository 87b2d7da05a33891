package gateway

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/config"
	"sluice/observe/metrics"
	"sluice/test/configtest"
	"sluice/test/verify"
)

// eachSeed calls f for seeds, until one fails. The environment variable says how many, and the one
// with _SEED the first.
func eachSeed(t *testing.T, variable string, seeds uint64, f func(t *testing.T, seed uint64)) {
	t.Helper()
	first := uint64(1)
	for name, value := range map[string]*uint64{variable: &seeds, variable + "_SEED": &first} {
		if text := os.Getenv(name); text != "" {
			*value = verify.Result(strconv.ParseUint(text, 10, 64)).Must(t)
		}
	}
	for seed := first; seed < first+seeds; seed++ {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { f(t, seed) }) {
			t.Fatalf("%[1]s=1 %[1]s_SEED=%[2]d", variable, seed)
		}
	}
}

// A world is what a seed has in TestCombinations and in TestFoundCombinations: what happens is its
// choice, while clients use one process after the other.
type world struct {
	t       *testing.T
	seed    uint64
	random  *rand.Rand // of the goroutine of the test
	began   time.Time
	texts   []string // of all configurations
	current atomic.Pointer[generation]
	all     []*generation
	ends    sync.WaitGroup // of generations that others have replaced
	failed  atomic.Bool
}

func (w *world) start(t *testing.T, seed uint64) {
	w.t, w.seed, w.random, w.began = t, seed, rand.New(rand.NewPCG(seed, 0)), time.Now()
	t.Cleanup(func() {
		for n, text := range w.texts {
			if t.Failed() {
				t.Logf("configuration %d:\n%s", n, text)
			}
		}
	})
}

// compose returns a configuration, after it was checked that it is valid.
func (w *world) compose(text string) *config.Config {
	built, err := configtest.Build(text)
	verify.Require(w.t, err == nil, "seed %d: the configuration is not valid: %v\n%s", w.seed, err, text)
	return built
}

// fail ends the seed, unless it has failed before.
func (w *world) fail(err error) {
	if !w.failed.Swap(true) {
		w.t.Errorf("seed %d, after %s: %v", w.seed, time.Since(w.began), err)
	}
}

// use makes a generation the one that clients use.
func (w *world) use(g *generation) {
	w.all = append(w.all, g)
	w.current.Store(g)
}

// begin returns the gateway for a request, and a function for when the request has come to it.
func (w *world) begin() (g *generation, arrived func()) {
	for {
		if g = w.current.Load(); g.starting.TryRLock() {
			return g, sync.OnceFunc(g.starting.RUnlock)
		}
	}
}

// retire makes clients leave a generation that was replaced, after lock has waited until what has
// begun to use it has come to it.
func (w *world) retire(g *generation, lock func()) {
	lock()
	g.closeClients()
	w.ends.Go(g.end)
}

// end verifies, after all clients have ended, that nothing is left, and that no rule was broken.
// closeClients closes the idle connections of those that are no generation's.
func (w *world) end(closeClients func()) {
	for _, g := range w.all {
		g.closeClients()
		for _, clients := range g.clients {
			clients.calls.Close()
		}
	}
	w.ends.Wait()
	if last := w.current.Load(); !w.t.Failed() {
		last.awaitNobody(func() { last.closeClients(); closeClients() })
		last.await("each answer is counted once by class, and once by status and reason", func() bool {
			byClass, byStatus := combinedAnswers(last.metrics())
			return maps.Equal(byClass, byStatus) // both may be empty, after an upgrade at the end
		})
	}
	for _, g := range w.all {
		g.checkLog()
	}
}

// awaitNobody waits until nothing is in flight, and no client is left.
func (r *running) awaitNobody(closeClients func()) {
	r.await("nothing is in flight", func() bool { return combinedLeft(r.metrics()) == "" })
	r.await("no client is left", func() bool {
		closeClients() // connections become idle some time after a request was left
		return strings.Contains(r.metrics(), "\nsluice_client_connections 0\n")
	})
}

// combinedLeft returns the lines of metrics that count what is in flight.
func combinedLeft(text string) (left string) {
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(line, "{")
		if slices.Contains([]string{"sluice_requests_in_flight", "sluice_peer_requests_in_flight", "sluice_requests_pending", "sluice_mirror_requests_in_flight", "sluice_tier_requests_waiting"}, name) && !strings.HasSuffix(line, " 0\n") {
			left += line
		}
	}
	return left
}

var countedAnswers = regexp.MustCompile(`(?m)^sluice_(?:unrouted_)?re(?:quests|sponses)_total\{(?:class="(\w+)"|reason="\w*")(?:,service="([^"]*)")?(?:,status="(\d+)")?\} (\d+)$`)

// combinedAnswers returns how many answers metrics have, by class and service: counted by class,
// and by status and reason.
func combinedAnswers(text string) (byClass, byStatus map[string]int) {
	byClass, byStatus = make(map[string]int), make(map[string]int)
	for _, found := range countedAnswers.FindAllStringSubmatch(text, -1) {
		n, _ := strconv.Atoi(found[4])
		if status, err := strconv.Atoi(found[3]); err == nil {
			byStatus[metrics.ClassOf(status).String()+" "+found[2]] += n
		} else if n > 0 {
			byClass[found[1]+" "+found[2]] += n
		}
	}
	return byClass, byStatus
}
