package chaos

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/observe/wake"
	"sluice/test/consultest"
)

// reconcileEvery is the time between two comparisons of the registrations with the apps.
const reconcileEvery = 500 * time.Millisecond

// apps are programs that register with the client agent. Like the scheduler of a platform, it
// restores lost registrations, and removes registrations of stopped apps when the agent is
// available again. Its methods may be called concurrently.
type apps struct {
	t    *testing.T
	c    *cluster
	wake wake.One // requests a comparison

	mu   sync.Mutex // guards the fields below
	made int
	live []*app // oldest first
}

type app struct {
	id     string // also the response to each request
	server *httptest.Server
}

func (a *app) address() string { return a.server.Listener.Addr().String() }

// startApps reconciles the registrations of apps until t ends.
func startApps(t *testing.T, c *cluster) *apps {
	a := &apps{t: t, c: c, wake: wake.NewOne()}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(reconcileEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-a.wake:
			case <-tick.C:
			}
			a.reconcile(ctx)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		for _, app := range a.live {
			app.server.Close()
		}
	})
	return a
}

// reconcile registers and deregisters, so that exactly the running apps are registered. It returns
// at the first error.
func (a *apps) reconcile(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a.mu.Lock()
	defer a.mu.Unlock()
	known, err := a.c.agent.Client().Agent().ServicesWithFilterOpts("", (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return
	}
	for _, app := range a.live {
		if _, ok := known[app.id]; ok {
			delete(known, app.id)
		} else if a.register(ctx, app, api.HealthCritical) != nil {
			return
		}
	}
	for id := range known {
		if a.deregister(ctx, id) != nil {
			return
		}
	}
}

func (a *apps) register(ctx context.Context, app *app, status string) error {
	return a.c.agent.Client().Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{
		Name: "star", ID: app.id, Address: "127.0.0.1", Port: app.server.Listener.Addr().(*net.TCPAddr).Port,
		Check: &api.AgentServiceCheck{TCP: app.address(), Interval: "1s", Status: status},
	}, api.ServiceRegisterOpts{Token: rootToken}.WithContext(ctx))
}

func (a *apps) deregister(ctx context.Context, id string) error {
	return a.c.agent.Client().Agent().ServiceDeregisterOpts(id, (&api.QueryOptions{}).WithContext(ctx))
}

func (a *apps) newApp() *app {
	a.made++
	n := &app{id: fmt.Sprintf("app-%d", a.made)}
	n.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, n.id) }))
	a.live = append(a.live, n)
	return n
}

// start starts an app, which is registered as critical as soon as the agent accepts it.
func (a *apps) start() *app {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.wake.Send()
	return a.newApp()
}

// startPassing starts an app, and registers it at once as passing.
func (a *apps) startPassing() *app {
	a.mu.Lock()
	defer a.mu.Unlock()
	started := a.newApp()
	consultest.Await(a.t, "the agent takes a registration", func() bool {
		ctx, cancel := context.WithTimeout(a.t.Context(), callTimeout)
		defer cancel()
		return a.register(ctx, started, api.HealthPassing) == nil
	})
	return started
}

// stopOldest stops an app like a signal: it deregisters if the agent answers within a second,
// finishes its requests, and ends.
func (a *apps) stopOldest() {
	oldest := a.leave()
	oldest.server.Close()
}

// drainOldest deregisters an app, which continues to serve.
func (a *apps) drainOldest() {
	drained := a.leave()
	end := time.AfterFunc(drainTime, drained.server.Close)
	a.t.Cleanup(func() {
		end.Stop()
		drained.server.Close()
	})
}

// drainTime is how long a deregistered app continues to serve.
const drainTime = 300 * time.Millisecond

func (a *apps) leave() *app {
	a.mu.Lock()
	oldest := a.live[0]
	a.live = a.live[1:]
	a.mu.Unlock()
	defer a.wake.Send() // if the agent is not available
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Second)
	defer cancel()
	_ = a.deregister(ctx, oldest.id)
	return oldest
}

// running returns the addresses of the running apps, sorted.
func (a *apps) running() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	addresses := []string{}
	for _, app := range a.live {
		addresses = append(addresses, app.address())
	}
	slices.Sort(addresses)
	return addresses
}
