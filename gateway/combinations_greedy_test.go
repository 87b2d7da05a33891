package gateway

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"sluice/observe/wake"
)

// greedy is who asks for the service one from an address of its own, in some seeds of
// TestCombinations: with as many requests at once as fill its places to wait, and in those where
// peers crash also for crashes, which use up the retries. What the others get stays.
const greedy, greedyAddress = "greedy", "127.0.0.2"

const (
	greedyRequests = 36 // at once
	greedyPending  = 24 // places to wait: more than twice what all others need, with their copies for mirrors
	greedyRetries  = 20 // each second of the services' budgets, if they are what is to be used up
)

var greedyClients = []combinedClient{{"web", greedy}, {"secure", greedy}}

// from returns the address of a client.
func (c combinedClient) from() net.IP {
	if c.who == greedy {
		return net.ParseIP(greedyAddress)
	}
	return net.IPv4(127, 0, 0, 1)
}

// dialer returns what connects a client to its listener.
func (c combinedClient) dialer() *net.Dialer {
	if c.who == greedy {
		return &net.Dialer{LocalAddr: &net.TCPAddr{IP: c.from()}}
	}
	return new(net.Dialer)
}

// crowd decides whether somebody greedy sends requests in a seed.
func (c *combinations) crowd() {
	if c.crowded = c.one(2); c.crowded && c.crashing {
		c.trusting, c.local = false, false // for clients that are not told apart there is no reserve of retries
	}
}

// startGreed sends requests of somebody greedy until end is called.
func (c *combinedRun) startGreed() (end func()) {
	if !c.crowded {
		return func() {}
	}
	var work sync.WaitGroup
	over := make(chan struct{})
	for n := range uint64(greedyRequests) {
		work.Go(func() {
			random := rand.New(rand.NewPCG(c.seed, 1_000+n))
			for !wake.Closed(over) && !c.failed.Load() {
				if err := c.take(random); err != nil {
					c.fail(fmt.Errorf("somebody greedy: %w", err))
				}
			}
		})
	}
	return func() { close(over); work.Wait() }
}

// take sends a greedy request, and says what is wrong with the answer.
func (c *combinedRun) take(random *rand.Rand) error {
	g, arrived := c.begin()
	defer arrived()
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
	defer cancel()
	e := g.enter(greedyClients[random.IntN(len(greedyClients))])
	a, protocol := combinedAsk{how: inDrops, status: http.StatusOK, length: 3_000, key: random.IntN(1000)}, e.protocol(random)
	switch kind := random.IntN(8); {
	case kind == 0:
		return c.takeTunnel(ctx, e, arrived, a, protocol)
	case kind == 1:
		return c.takeAndLeave(ctx, e, a, protocol, time.Duration(random.IntN(10))*time.Millisecond)
	case kind < 5 && c.crashing:
		a.how = crash
	case kind < 5 && c.trusting: // by the trusted proxy that others use too
		e = g.enter(combinedClient{e.listener, ""})
	}
	status, reason, err := e.ask(ctx, a, protocol)
	switch {
	case err != nil:
		return err
	case status == http.StatusOK, a.how == crash && status == http.StatusBadGateway, c.refuses(reason):
		return nil
	}
	return fmt.Errorf("got %d, %s", status, reason)
}

func (c *combinedRun) takeTunnel(ctx context.Context, e *entrance, arrived func(), a combinedAsk, protocol string) error {
	conn, _, err := e.tunnel(ctx, protocol, "/greedy/tunnel", false)
	if err != nil && c.refuses(err.Error()) {
		return nil
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	arrived()
	return echoes(conn, combinedBody(a.key, a.length), 2)
}

// takeAndLeave does not wait for the answer, or not for all of it.
func (c *combinedRun) takeAndLeave(ctx context.Context, e *entrance, a combinedAsk, protocol string, after time.Duration) error {
	leaving, cancel := context.WithTimeout(ctx, after)
	defer cancel()
	_, _, err := e.ask(leaving, a, protocol)
	if leaving.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// refuses reports whether a text has the reason of an answer to who asks for too much: where peers
// are left, since they are slow or refuse connections, there may be no room for the retry to wait.
func (c *combinedRun) refuses(text string) bool {
	return strings.Contains(text, "too_many_pending") || c.impatient && strings.Contains(text, "upstream_timeout") ||
		c.dying && strings.Contains(text, "connect_failed")
}

// ask sends a request by the route for somebody greedy, and reads the answer.
func (e *entrance) ask(ctx context.Context, a combinedAsk, protocol string) (status int, reason string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s://a.example.com/greedy/%d?%s", e.scheme(), a.key, a.query()), nil)
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("X-Forwarded-For", greedyAddress)
	response, err := e.clients[e.combinedClient].http[protocol].Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0, "", err
	}
	return response.StatusCode, response.Header.Get("X-Sluice-Reason"), nil
}
