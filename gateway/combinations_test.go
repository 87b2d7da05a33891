package gateway

import (
	"context"
	"crypto/tls"
	"errors"
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

	"sluice/observe/metrics"
	"sluice/test/discoverytest"
	"sluice/test/long"
	"sluice/test/verify"
)

// TestCombinations serves requests of all kinds by configurations that features are in at random,
// while others replace them, and while other processes do. What clients get stays, nothing is left
// in the end, and no rule of the balancer is broken. SLUICE_COMBINATIONS is how many seeds run, and
// SLUICE_COMBINATIONS_SEED the first: without it 1, so that a run can be repeated. Who looks for
// faults sets it.
func TestCombinations(t *testing.T) {
	t.Parallel()
	servers := startCombinedServers(t)
	eachSeed(t, "SLUICE_COMBINATIONS", long.Count(t, uint64(3), 40), func(t *testing.T, seed uint64) { testCombinations(t, servers, seed) })
}

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

// A combinedRun is the run of a seed.
type combinedRun struct {
	*combinations
	seed       uint64
	sessions   tls.ClientSessionCache // of all clients, also of those with other certificates
	handshakes atomic.Uint64
	current    atomic.Pointer[generation]
	failed     atomic.Bool
}

func testCombinations(t *testing.T, servers *combinedServers, seed uint64) {
	c := &combinedRun{seed: seed, sessions: tls.NewLRUClientSessionCache(0), combinations: &combinations{t: t, random: rand.New(rand.NewPCG(seed, 0)), servers: servers,
		dir: t.TempDir(), consul: discoverytest.Start(t), healthy: true}}
	c.certify()
	c.newRoutes()
	c.nameActions(rand.New(rand.NewPCG(seed, 10_000)))
	c.register()
	r := newRunning(t, c.next())
	r.listen = servers.apart
	r.run(Options{})
	r.awaitReady()
	all := []*generation{newGeneration(c, r)}
	c.current.Store(all[0])

	endGreed := c.startGreed()
	const clients, requests, changes = 6, 20, 4
	var work sync.WaitGroup
	done := make(chan struct{}, clients*requests)
	for client := range uint64(clients) {
		work.Go(func() {
			random := rand.New(rand.NewPCG(seed, 1+client))
			for range requests {
				if what, err := c.request(random); err != nil && !c.failed.Swap(true) {
					t.Errorf("seed %d: %s: %v", seed, what, err)
				}
				done <- struct{}{}
			}
		})
	}
	var ends sync.WaitGroup
	for n := range clients * requests {
		<-done
		if (n+1)%(clients*requests/(changes+1)) != 0 || c.failed.Load() {
			continue
		}
		old := c.current.Load()
		c.disturb(old)
		c.disturbIssuer(old)
		c.known, _ = old.known()
		c.present = slices.Collect(maps.Keys(old.effective.Load().Services))
		c.upgrading = c.one(4) || !c.healthy && c.one(2)
		text := c.next()
		if !c.upgrading {
			old.terms.change([]terms{c.terms}, func() terms { c.reload(old, text); return c.terms })
			continue
		}
		all = append(all, c.replaceBy(old, text))
		ends.Go(old.end)
	}
	work.Wait()
	endGreed()
	last := c.current.Load()
	last.closeClients()
	for _, g := range all {
		for _, clients := range g.clients {
			clients.calls.Close()
		}
	}
	ends.Wait()
	if request := servers.barred.Swap(nil); request != nil {
		t.Errorf("seed %d: a peer got a request of a client that the route is not for: %s", seed, *request)
	}
	if !t.Failed() {
		last.awaitNobody(last.closeClients)
		last.await("each answer is counted once by class, and once by status and reason", func() bool {
			byClass, byStatus := combinedAnswers(last.metrics())
			return maps.Equal(byClass, byStatus) // both may be empty, after an upgrade at the end
		})
	}
	for _, g := range all {
		g.checkLog()
	}
	if t.Failed() {
		for n, text := range c.texts {
			t.Logf("configuration %d:\n%s", n, text)
		}
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

// begin returns the gateway for a request, and a function for when the request has come to it.
func (c *combinedRun) begin() (g *generation, arrived func()) {
	for {
		if g = c.current.Load(); g.starting.TryRLock() {
			return g, sync.OnceFunc(g.starting.RUnlock)
		}
	}
}

// request sends something at random, and says what is wrong with the answer.
func (c *combinedRun) request(random *rand.Rand) (what string, err error) {
	g, arrived := c.begin()
	defer arrived()
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
	defer cancel()
	certified := certifiedClients[random.IntN(len(certifiedClients))]
	e := g.enter(openClients[random.IntN(len(openClients))])
	switch n := random.IntN(8); {
	case n < 2:
		e = g.enter(certified)
	case n < 4 && c.local:
		e = g.enter(localClients[random.IntN(len(localClients))])
	}
	route, protocol := c.routes[random.IntN(len(c.routes)-2)], e.protocol(random)
	switch kind := random.IntN(12); {
	case kind == 0:
		what, err = "WebSocket", c.webSocket(ctx, e, arrived, protocol, random)
	case kind == 1:
		what, err = "gRPC", c.call(ctx, e, arrived, protocol, random)
	case kind == 2:
		e = g.enter(combinedClient{[]string{"db", "told", "names"}[random.IntN(3)], certified.who})
		what, err = "TCP", c.stream(ctx, e, arrived, random)
	case kind == 3:
		what, err = "pipelined", c.pipelined(ctx, e, random)
	case random.IntN(10) == 0:
		what, err = "who leaves", c.leave(ctx, e, route, protocol, random)
	case route.keys["cors"] != nil && route.other == nil && random.IntN(5) == 0:
		what, err = "preflight", c.preflight(ctx, e, route, protocol)
	default:
		what, err = c.exchange(ctx, e, arrived, route, protocol, random)
	}
	if err != nil && !errors.As(err, new(trespass)) && slices.Contains(e.standings(true), rejected) {
		return "", nil
	}
	return fmt.Sprintf("%s with certificate %q, %s, %s", e.listener, e.who, protocol, what), err
}
