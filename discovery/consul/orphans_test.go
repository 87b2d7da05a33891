package consul

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consultest"
	"sluice/discovery"
	"sluice/discovery/discoverytest"
)

// manyServices is nearly as many as may have a connection of their own.
const manyServices = 115

// stockLimit is how many connections an agent takes from one address.
const stockLimit = 200

// busyAgent counts the queries that an agent works on, whether their clients are
// still there or not: each has a connection that counts. One that is answered
// from a view ends with its client. One that blocks at a server goes on until its
// wait is over. While the agent stands still, or holds what it cannot ask a leader,
// none ends.
type busyAgent struct {
	*discoverytest.Consul

	mu    sync.Mutex
	still chan struct{} // closed when the agent goes on
	last  discoverytest.Fault
	now   int // queries that it works on
	most  int
}

func (a *busyAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/v1/status/") {
		a.Consul.ServeHTTP(w, r)
		return
	}
	a.mu.Lock()
	a.now++
	a.most = max(a.most, a.now)
	a.mu.Unlock()
	begin := time.Now()
	a.Consul.ServeHTTP(w, r)
	a.mu.Lock()
	still, fault := a.still, a.last
	a.mu.Unlock()
	q := r.URL.Query()
	blocks := q.Has("index") && (q.Has("near") || !strings.HasPrefix(r.URL.Path, "/v1/health/service/"))
	select {
	case <-still:
	default:
		if <-still; fault.Leaderless {
			begin = time.Now() // the next leader is asked
		}
	}
	if blocks && r.Context().Err() != nil {
		wait, _ := time.ParseDuration(q.Get("wait"))
		time.Sleep(time.Until(begin.Add(wait)))
	}
	a.mu.Lock()
	a.now--
	a.mu.Unlock()
}

// stop breaks the agent, so that no query ends but those from views, until it is
// told to go on.
func (a *busyAgent) stop(f discoverytest.Fault) (goOn func()) {
	still := make(chan struct{})
	a.mu.Lock()
	a.still, a.last = still, f
	a.mu.Unlock()
	a.Break(f)
	return func() {
		close(still)
		a.Heal()
	}
}

func (a *busyAgent) peak() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.most
}

// atBusyAgent watches so many services in a synctest bubble, each with an
// instance on one of so many nodes, or with none if there are no nodes.
func atBusyAgent(t *testing.T, services, nodes int, f func(t *testing.T, agent *busyAgent, m *discovery.Manager)) {
	synctest.Test(t, func(t *testing.T) {
		agent := &busyAgent{Consul: discoverytest.New(), still: make(chan struct{})}
		close(agent.still)
		all := make(map[string][]*api.ServiceEntry)
		for n := range services {
			if nodes > 0 {
				e := discoverytest.Instance(crowdService(n), "a", 1000+n)
				all[crowdService(n)] = []*api.ServiceEntry{discoverytest.OnNode(e, fmt.Sprint("node-", n%nodes), fmt.Sprint("10.0.0.", n%nodes))}
			}
		}
		agent.SetAll(all)
		pipe := discoverytest.ServePipe(agent)
		client, err := NewClient(ClientOptions{Addresses: []string{"http://fake"}, Log: zerolog.Nop(), dial: pipe.DialContext})
		must(t, err)
		m := watchMany(client, services)
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { m.Run(ctx) })
		defer func() {
			cancel()
			run.Wait()
			client.Close()
			pipe.Close()
			time.Sleep(2 * time.Minute) // what the agent still works on
		}()
		time.Sleep(10 * time.Second)
		f(t, agent, m)
		if s := client.Stats(); s.Peak > defaultMaxWatches || s.Refused > 0 {
			t.Errorf("%+v: want at most %d connections, and none refused", s, defaultMaxWatches)
		}
	})
}

// What sluice has given up the agent may still work on. If it asks anew all the
// same, the agent refuses every client at this address.
func TestOutagesInARowLeaveConnectionsToOthers(t *testing.T) {
	for _, tt := range []struct {
		name     string
		services int
		fault    discoverytest.Fault
	}{
		{"own queries, it stands still", manyServices, discoverytest.Fault{Hang: true}},
		{"own queries, it has no leader", manyServices, discoverytest.Fault{Leaderless: true}},
		{"by nodes, it stands still", 3 * manyServices, discoverytest.Fault{Hang: true}},
		{"by nodes, it has no leader", 3 * manyServices, discoverytest.Fault{Leaderless: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			atBusyAgent(t, tt.services, 60, func(t *testing.T, agent *busyAgent, m *discovery.Manager) {
				for outage := range 4 {
					goOn := agent.stop(tt.fault)
					time.Sleep(5 * time.Second)
					goOn()
					time.Sleep(3 * time.Second)
					synctest.Wait()
					if n := notFresh(m); n > 0 {
						t.Errorf("3 s after outage %d: %d watches are not fresh", outage, n)
					}
					time.Sleep(7 * time.Second)
				}
				if got := agent.peak(); got > stockLimit-10 {
					t.Errorf("the agent had %d connections at a time, want some left of %d", got, stockLimit)
				}
			})
		})
	}
}

func TestFewQueriesGoToAnAgentThatDoesNotAnswer(t *testing.T) {
	atBusyAgent(t, manyServices, 60, func(t *testing.T, agent *busyAgent, m *discovery.Manager) {
		agent.Break(discoverytest.Fault{Hang: true})
		time.Sleep(5 * time.Second)
		before := len(agent.Requests())
		time.Sleep(55 * time.Second)
		// Each query is given up after 10 s.
		if got := len(agent.Requests()) - before; got > 8*leastConnections {
			t.Errorf("%d queries in 55 s", got)
		}
		agent.Heal()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if n := notFresh(m); n > 0 {
			t.Errorf("3 s after the outage %d watches are not fresh", n)
		}
	})
}

// An agent that is slow because it has much to do is not asked more for it.
func TestManyQueriesThatTakeLongAreNotRepeated(t *testing.T) {
	atBusyAgent(t, manyServices, 60, func(t *testing.T, agent *busyAgent, m *discovery.Manager) {
		agent.Break(discoverytest.Fault{Status: http.StatusInternalServerError})
		time.Sleep(sec)
		goOn := agent.stop(discoverytest.Fault{})
		before := len(agent.Requests())
		time.Sleep(5 * time.Second)
		if got := len(agent.Requests()) - before; got > manyServices {
			t.Errorf("%d queries in 5 s in which none was answered, want one of each watch", got)
		}
		goOn()
		time.Sleep(3 * time.Second)
	})
}

// watchMany watches so many services.
func watchMany(client *Client, services int) *discovery.Manager {
	m := discovery.NewManager(discovery.ManagerOptions{Sink: func(string, []discovery.Instance) {}})
	for n := range services {
		m.Watch(crowdService(n), client.Source(ServiceOptions{Service: crowdService(n)}))
	}
	return m
}

func notFresh(m *discovery.Manager) (n int) {
	for _, s := range m.Statuses() {
		if s.State != discovery.WatchFresh {
			n++
		}
	}
	return n
}

func TestRealOutagesInARowLeaveConnectionsToOthers(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	client, err := NewClient(ClientOptions{Addresses: []string{agent.URL()}, Log: zerolog.Nop()})
	must(t, err)
	m := watchMany(client, manyServices)
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { m.Run(ctx) })
	defer func() {
		cancel()
		run.Wait()
		client.Close()
	}()
	fresh := func() bool { return notFresh(m) == 0 }
	consultest.Await(t, "all fresh", fresh)
	other := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for outage := range 3 {
		must(t, agent.Pause())
		consultest.Await(t, "all stale", func() bool { return notFresh(m) == manyServices })
		must(t, agent.Resume())
		for settled := false; !settled; settled = fresh() {
			r, err := other.Get(agent.URL() + "/v1/agent/self")
			must(t, err)
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
			if r.StatusCode != http.StatusOK {
				t.Fatalf("outage %d: another program is answered %s", outage, r.Status)
			}
		}
	}
	if s := client.Stats(); s.Refused > 0 || s.Shared {
		t.Errorf("%+v: want none refused, and each watch on a connection of its own", s)
	}
}
