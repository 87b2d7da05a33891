package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/admin"
	"sluice/config"
	"sluice/gateway"
)

// EnvSeeds is the environment variable with the number of seeds to run.
const EnvSeeds = "SLUICE_CHAOS_SEEDS"

const (
	patience     = 2 * time.Minute // for what a busy machine takes its time with
	requestEvery = 10 * time.Millisecond
	// servedWithin is how soon after the end of a fault a new app is to be served.
	// Only long runs insist on it: a busy machine is no mistake.
	servedWithin = 2 * time.Second
)

func TestChaos(t *testing.T) {
	seeds, _ := strconv.Atoi(os.Getenv(EnvSeeds))
	for seed := range uint64(max(1, seeds)) {
		t.Run(fmt.Sprintf("seed %d", seed+1), func(t *testing.T) { run(t, seed+1, seeds > 0) })
	}
}

// run goes through all faults in the order that seed gives.
func run(t *testing.T, seed uint64, strict bool) {
	random := rand.New(rand.NewPCG(seed, 0))
	c := startCluster(t)
	apps := startApps(t, c)
	for range 3 {
		apps.add()
	}
	s := startSluice(t, c)
	s.await("the first apps are served", func() bool { return len(s.serving()) == 3 && slices.Equal(s.serving(), c.passing()) })
	load := s.startLoad()

	order := slices.Clone(faults)
	random.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
	if testing.Short() {
		order = order[:3]
	}
	for _, f := range order {
		before := load.failed.Load()
		f.happen(c, random)
		c.awaitQuery()
		id := apps.add()
		s.await("the catalog has the new app", func() bool { return slices.Contains(c.passing(), apps.address(id)) })
		begin := time.Now()
		s.await("the new app is served", func() bool { return s.get() == id })
		took := time.Since(begin)
		s.await("the pool equals the catalog", func() bool { return slices.Equal(s.serving(), c.passing()) })
		t.Logf("%-36s failed requests: %d, new app served after %v", f.name, load.failed.Load()-before, took.Round(time.Millisecond))
		if strict && took > servedWithin {
			t.Errorf("%s: a new app was served after %v, want %v", f.name, took, servedWithin)
		}
		gone := apps.deregisterOldest()
		s.await("the oldest app has left", func() bool { return !slices.Contains(s.serving(), gone) })
	}
	load.stop()
	t.Logf("%d requests, %d failed", load.sent.Load(), load.failed.Load())
	if load.failed.Load() > 0 {
		t.Errorf("%d of %d requests failed; the first: %s", load.failed.Load(), load.sent.Load(), load.first.Load())
	}
}

// sluice is a running gateway.
type sluice struct {
	*gateway.Gateway
	t      *testing.T
	client *http.Client
}

func startSluice(t *testing.T, c *cluster) *sluice {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	text := fmt.Sprintf(`
listeners: [{ name: web, address: "127.0.0.1:0" }]
admin: { address: "127.0.0.1:0" }
access_log: { path: "off" }
shutdown: { idle: 0s, grace: 1s }
consul: { addresses: [%q], token_file: %q, wait: 2s }
services: { star: { consul: {}, balance: { policy: round_robin } } }
routes: [{ service: star }]
`, c.relay.URL(), c.tokenFile)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "sluice.log"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Options{Input: config.Input{File: file}, Version: "test", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = g.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if t.Failed() {
			lines, _ := os.ReadFile(log.Name())
			t.Logf("sluice's log:\n%s", lines)
		}
		log.Close()
	})
	return &sluice{g, t, &http.Client{Timeout: 10 * time.Second}}
}

// get sends a request and returns the body, or the error in words.
func (s *sluice) get() string {
	response, err := s.client.Get("http://" + s.Address("web").String() + "/")
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Sprintf("status %d: %s", response.StatusCode, body)
	}
	return string(body)
}

// serving returns the addresses of the peers that are up, sorted.
func (s *sluice) serving() []string {
	response, err := s.client.Get("http://" + s.Address("admin").String() + "/api/peers?state=up")
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	var peers []admin.Peer
	if err := json.NewDecoder(response.Body).Decode(&peers); err != nil {
		s.t.Error(err)
	}
	addresses := []string{}
	for _, p := range peers {
		addresses = append(addresses, p.Address)
	}
	slices.Sort(addresses)
	return addresses
}

// await waits until ok is true.
func (s *sluice) await(what string, ok func() bool) {
	s.t.Helper()
	await(s.t, what, ok)
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

// load is requests without a pause.
type load struct {
	sent, failed atomic.Int64
	first        atomic.Value // of the failures, in words
	stop         func()
}

// startLoad sends about 100 requests a second until stop.
func (s *sluice) startLoad() *load {
	l := new(load)
	l.first.Store("")
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(requestEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			running.Go(func() {
				l.sent.Add(1)
				if got := s.get(); len(got) > 8 || got[:4] != "app-" {
					l.failed.Add(1)
					l.first.CompareAndSwap("", got)
				}
			})
		}
	})
	l.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	s.t.Cleanup(l.stop)
	return l
}
