package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/test/discoverytest"
	"sluice/test/long"
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

// A combinedRun is the run of a seed.
type combinedRun struct {
	*combinations
	sessions   tls.ClientSessionCache // of all clients, also of those with other certificates
	handshakes atomic.Uint64
}

func testCombinations(t *testing.T, servers *combinedServers, seed uint64) {
	c := &combinedRun{sessions: tls.NewLRUClientSessionCache(0), combinations: &combinations{servers: servers, dir: t.TempDir(), consul: discoverytest.Start(t), healthy: true}}
	c.start(t, seed)
	c.certify()
	c.newRoutes()
	c.nameActions(rand.New(rand.NewPCG(seed, 10_000)))
	c.register()
	r := newRunning(t, c.next())
	r.listen = servers.apart
	r.run(Options{})
	r.awaitReady()
	c.use(newGeneration(c, r))

	endGreed := c.startGreed()
	const clients, requests, changes = 6, 20, 4
	var work sync.WaitGroup
	done := make(chan struct{}, clients*requests)
	for client := range uint64(clients) {
		work.Go(func() {
			random := rand.New(rand.NewPCG(seed, 1+client))
			for range requests {
				if what, err := c.request(random); err != nil {
					c.fail(fmt.Errorf("%s: %w", what, err))
				}
				done <- struct{}{}
			}
		})
	}
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
		c.use(newGeneration(c, old.upgrade(text, nil)))
		c.retire(old, old.starting.Lock)
	}
	work.Wait()
	endGreed()
	c.end(func() {})
	if request := servers.barred.Swap(nil); request != nil {
		t.Errorf("seed %d: a peer got a request of a client that the route is not for: %s", seed, *request)
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
