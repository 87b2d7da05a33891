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

	"sluice/consultest"
)

// reconcileEvery is how often the registrations are compared with the apps.
const reconcileEvery = 500 * time.Millisecond

// apps are programs that register themselves with the client agent, and what
// keeps the registrations right, as a platform's scheduler does: an agent that
// has lost them gets them again, and one that was away when an app stopped is
// told later. It is safe for concurrent use.
type apps struct {
	t    *testing.T
	c    *cluster
	wake chan struct{} // capacity 1: reconcile now

	mu   sync.Mutex // guards the fields below
	made int
	live []*app // the oldest first
}

type app struct {
	id     string // also its answer to every request
	server *httptest.Server
}

func (a *app) address() string { return a.server.Listener.Addr().String() }

// startApps keeps the registrations of apps right until t ends.
func startApps(t *testing.T, c *cluster) *apps {
	a := &apps{t: t, c: c, wake: make(chan struct{}, 1)}
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

// reconcile makes the agent's registrations those of the apps that run. It gives
// up at the first error, until the next time.
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

// register registers an app with a check, whose state is status until it has run
// for the first time.
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

// start starts an app, which is registered, as critical at first, as soon as the
// agent takes it.
func (a *apps) start() *app {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.reconcileSoon()
	return a.newApp()
}

// startPassing starts an app and registers it at once, as passing.
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

// stopOldest stops an app as a signal does: it deregisters itself if the agent
// answers within a second, ends what it has begun, and is gone.
func (a *apps) stopOldest() {
	oldest := a.leave()
	oldest.server.Close()
}

// drainOldest has an app deregistered, which goes on serving whoever still comes.
func (a *apps) drainOldest() {
	drained := a.leave()
	end := time.AfterFunc(drainTime, drained.server.Close)
	a.t.Cleanup(func() {
		end.Stop()
		drained.server.Close()
	})
}

// drainTime is how long an app goes on to answer after it has left the registry.
const drainTime = 300 * time.Millisecond

// leave takes the oldest app out of the registry.
func (a *apps) leave() *app {
	a.mu.Lock()
	oldest := a.live[0]
	a.live = a.live[1:]
	a.mu.Unlock()
	defer a.reconcileSoon() // if the agent is away
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Second)
	defer cancel()
	_ = a.deregister(ctx, oldest.id)
	return oldest
}

func (a *apps) reconcileSoon() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// running returns the addresses of the apps that run, sorted.
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
