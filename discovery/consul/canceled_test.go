package consul

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/discovery/consul/overview"
	"sluice/test/discoverytest"
	"sluice/test/long"
	"sluice/test/verify"
)

// manyServices is almost the maximum for one connection per service.
const manyServices = 115

// agentLimit is the number of connections that an agent accepts from one address.
const agentLimit = 200

// busyAgent counts the queries that an agent processes, including canceled ones: each
// has a connection. A query that a view answers ends when it is canceled. One that blocks
// at a server continues until its wait is over. While the agent is stopped, or has no
// leader, none ends.
type busyAgent struct {
	*discoverytest.Consul

	mu      sync.Mutex
	stopped chan struct{} // closed when the agent resumes
	last    discoverytest.Fault
	now     int // queries in progress
	most    int
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
	stopped, fault := a.stopped, a.last
	a.mu.Unlock()
	q := r.URL.Query()
	blocks := q.Has("index") && (q.Has("near") || !strings.HasPrefix(r.URL.Path, "/v1/health/service/"))
	select {
	case <-stopped:
	default:
		if <-stopped; fault.Leaderless {
			begin = time.Now() // the new leader starts the wait
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

// stop stops the agent with a fault: only queries that views answer end, until resume.
func (a *busyAgent) stop(f discoverytest.Fault) (resume func()) {
	stopped := make(chan struct{})
	a.mu.Lock()
	a.stopped, a.last = stopped, f
	a.mu.Unlock()
	a.Break(f)
	return func() {
		close(stopped)
		a.Heal()
	}
}

func (a *busyAgent) peak() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.most
}

// atBusyAgent watches services in virtual time, each with an instance on one of nodes;
// with 0 nodes there are no instances.
func atBusyAgent(t *testing.T, services, nodes int, f func(t *testing.T, agent *busyAgent, m *discovery.Manager)) {
	synctest.Test(t, func(t *testing.T) {
		agent := &busyAgent{Consul: discoverytest.New(), stopped: make(chan struct{})}
		close(agent.stopped)
		all := make(map[string][]*api.ServiceEntry)
		for n := range services {
			if nodes > 0 {
				e := discoverytest.Instance(serviceName(n), "a", 1000+n)
				all[serviceName(n)] = []*api.ServiceEntry{discoverytest.OnNode(e, fmt.Sprint("node-", n%nodes), fmt.Sprint("10.0.0.", n%nodes))}
			}
		}
		agent.SetAll(all)
		t.Cleanup(func() { time.Sleep(2 * time.Minute) }) // queries in progress at the agent
		client, _ := inMemory(t, agent, consul.Options{Log: zerolog.Nop()})
		m := watchMany(t, client, services)
		time.Sleep(10 * time.Second)
		f(t, agent, m)
		const most = 128 // the default
		s := client.Stats()
		verify.That(t, s.Peak <= most && s.Refused <= 0, "%+v: want at most %d connections, and none refused", s, most)
	})
}

// The agent continues canceled queries. If too many are repeated, it refuses all clients at
// this address.
func TestRepeatedOutagesLeaveConnectionsToOthers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		services int
		nodes    int
		fault    discoverytest.Fault
	}{
		{"one query per service, stopped", manyServices, 60, discoverytest.Fault{Hang: true}},
		{"one query per service, no leader", manyServices, 60, discoverytest.Fault{Leaderless: true}},
		{"overview, stopped", 3 * manyServices, 60, discoverytest.Fault{Hang: true}},
		{"overview, a slot for each of many nodes, stopped", 3 * manyServices, 119, discoverytest.Fault{Hang: true}},
		{"overview, more nodes than slots, stopped", 3 * manyServices, 200, discoverytest.Fault{Hang: true}},
		{"overview, no leader", 3 * manyServices, 119, discoverytest.Fault{Leaderless: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.nodes > 60 && testing.Short() {
				t.Skip("it adds no concurrency to fewer nodes")
			}
			atBusyAgent(t, tt.services, tt.nodes, func(t *testing.T, agent *busyAgent, m *discovery.Manager) {
				for outage := range long.Count(t, 2, 4) {
					resume := agent.stop(tt.fault)
					time.Sleep(5 * time.Second)
					resume()
					time.Sleep(3 * time.Second)
					synctest.Wait()
					verify.Equal(t, notFresh(m), 0, "watches that are not fresh 3 s after outage %d", outage)
					time.Sleep(7 * time.Second)
				}
				got := agent.peak()
				verify.That(t, got <= agentLimit-10, "the agent had %d connections, want fewer than its limit of %d", got, agentLimit)
			})
		})
	}
}

// An agent that was stopped has not closed the connections of canceled queries yet when it answers
// again. It counts them with those that replace them.
func TestReplacedConnectionsAreNotCountedTwice(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		services int
		watches  int           // consul.max_watches; 0: the default
		closing  time.Duration // for how long the agent is busy when it answers again
		within   time.Duration // all are fresh after the recovery: a probe in 550 ms, a spread of 200 ms
	}{
		{manyServices, 0, 300 * ms, 1500 * ms},
		{manyServices, 0, 2 * time.Second, 3200 * ms},
		{manyServices / 3, 0, 300 * ms, 800 * ms}, // there is room: they do not wait
		{manyServices / 3, 0, 2 * time.Second, 800 * ms},
		{1, 3, 10 * time.Second, 1300 * ms}, // one connection for queries
	} {
		synctest.Test(t, func(t *testing.T) {
			fake, running := discoverytest.New(), make(chan struct{})
			close(running)
			t.Cleanup(func() { time.Sleep(tt.closing + time.Second) }) // the agent closes connections
			client, pipe := inMemory(t, fake, consul.Options{MaxWatches: tt.watches, Log: zerolog.Nop()})
			pipe.Closing = func() {
				<-running
				time.Sleep(tt.closing)
			}
			m := watchMany(t, client, tt.services)
			for range 3 {
				time.Sleep(10 * time.Second)
				running = make(chan struct{})
				fake.Break(discoverytest.Fault{Pause: true})
				time.Sleep(6 * time.Second)
				verify.Equal(t, notFresh(m), tt.services, "watches that are not fresh in the outage")
				fake.Heal()
				close(running)
				time.Sleep(tt.within)
				synctest.Wait()
				verify.Equal(t, notFresh(m), 0, "%v after the outage, of %d watches those that are not fresh", tt.within, tt.services)
			}
			most := pipe.Most()
			verify.That(t, most < agentLimit, "the agent had %d connections for %d services, busy for %v, want fewer than its limit of %d", most, tt.services, tt.closing, agentLimit)
		})
	}
}

// Other clients at this address may have most of an agent's connections. It continues canceled
// queries, and those for an overview would block for ten minutes.
func TestAgentWithFewConnections(t *testing.T) {
	t.Parallel()
	for _, connections := range []int{6, 10} {
		t.Run(fmt.Sprint(connections), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				agent := &busyAgent{Consul: discoverytest.New(), stopped: make(chan struct{})}
				close(agent.stopped)
				t.Cleanup(func() { time.Sleep(11 * time.Minute) }) // queries in progress at the agent
				client, pipe := inMemory(t, agent, consul.Options{Log: zerolog.Nop()})
				pipe.Limit = connections
				m := discovery.NewManager(discovery.ManagerOptions{Sink: func(discovery.Set) {}})
				for n := range 60 {
					e := discoverytest.Instance(serviceName(n), "a", 1000+n)
					agent.Set(serviceName(n), discoverytest.OnNode(e, fmt.Sprint("node-", n%3), fmt.Sprint("10.0.0.", n%3)))
					m.Watch(serviceName(n), client.Source(ServiceOptions{Service: serviceName(n), Wait: maxWait}))
				}
				run(t, m)
				soon := func(what string, holds func() bool) {
					t.Helper()
					for end := time.Now().Add(time.Minute); !holds(); time.Sleep(100 * ms) {
						verify.Require(t, time.Now().Before(end), "%s: not within a minute: %+v", what, client.Stats())
					}
				}
				for outage := range long.Count(t, 2, 3) {
					soon(fmt.Sprint("all are fresh after outage ", outage), func() bool { return notFresh(m) == 0 })
					agent.Set(serviceName(outage))
					soon(fmt.Sprint("a change is seen after outage ", outage), func() bool {
						return slices.ContainsFunc(m.Statuses(), func(s discovery.WatchStatus) bool {
							return s.Service == serviceName(outage) && s.Probation > 0
						})
					})
					time.Sleep(80 * time.Second) // then queries for services may be answered by views again
					resume := agent.stop(discoverytest.Fault{Hang: true})
					time.Sleep(5 * time.Second)
					resume()
				}
			})
		})
	}
}

// An agent may be slow because it is busy.
func TestManyHeldQueriesAreNotRepeated(t *testing.T) {
	t.Parallel()
	atBusyAgent(t, manyServices, 60, func(t *testing.T, agent *busyAgent, m *discovery.Manager) {
		agent.Break(discoverytest.Fault{Status: http.StatusInternalServerError})
		time.Sleep(sec)
		resume := agent.stop(discoverytest.Fault{})
		before := len(agent.Requests())
		time.Sleep(5 * time.Second)
		got := len(agent.Requests()) - before
		verify.That(t, got <= manyServices, "%d queries in 5 s without an answer, want one per watch", got)
		resume()
		time.Sleep(3 * time.Second)
	})
}

// watchMany watches services until t ends.
func watchMany(t *testing.T, client *testClient, services int) *discovery.Manager {
	m := discovery.NewManager(discovery.ManagerOptions{Sink: func(discovery.Set) {}})
	for n := range services {
		m.Watch(serviceName(n), client.Source(ServiceOptions{Service: serviceName(n)}))
	}
	run(t, m)
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

const blocked = 20

// blockWatches runs f with watches of which each has a blocking query. The agent takes a time to
// close a connection.
func blockWatches(t *testing.T, closing time.Duration, f func(t *testing.T, fake *discoverytest.Consul, client *testClient, m *discovery.Manager)) {
	synctest.Test(t, func(t *testing.T) {
		fake := discoverytest.New()
		for n := range blocked {
			fake.Set(serviceName(n), discoverytest.Instance(serviceName(n), "a", 1000+n))
		}
		t.Cleanup(func() { time.Sleep(2 * closing) }) // the agent closes connections
		client, pipe := inMemory(t, fake, consul.Options{})
		pipe.Closing = func() { time.Sleep(closing) }
		m := watchMany(t, client, blocked)
		time.Sleep(10 * sec)
		synctest.Wait()
		got := client.Stats().Connections
		verify.That(t, got > blocked, "%d connections, want one for each watch and one for probes", got)
		f(t, fake, client, m)
	})
}

func TestReleaseWaitsUntilTheAgentHasClosedTheConnections(t *testing.T) {
	blockWatches(t, 100*ms, func(t *testing.T, fake *discoverytest.Consul, client *testClient, m *discovery.Manager) {
		begin := time.Now()
		verify.Equal(t, client.Release(m.Pause), 0, "connections are abandoned")
		verify.Equal(t, time.Since(begin), 100*ms, "Release took")
		verify.Equal(t, client.Stats().Connections, 0, "the client still has connections")
		m.Resume()
		fake.Set(serviceName(7), discoverytest.Instance(serviceName(7), "a", 1), discoverytest.Instance(serviceName(7), "b", 2))
		time.Sleep(sec)
		synctest.Wait()
		verify.That(t, slices.ContainsFunc(m.Statuses(), func(s discovery.WatchStatus) bool { return s.Service == serviceName(7) && s.Instances == 2 }), "after Resume a change is not seen")
	})
}

// The next client opens fewer connections if the agent has left many open.
func TestReleaseCountsConnectionsThatTheAgentLeavesOpen(t *testing.T) {
	blockWatches(t, time.Hour, func(t *testing.T, _ *discoverytest.Consul, client *testClient, m *discovery.Manager) {
		abandoned := client.Release(m.Pause)
		// Including those of probes, and superfluous ones of net/http.
		opened := client.Stats().Opened
		verify.That(t, abandoned >= blocked && uint64(abandoned) <= opened, "%d of %d connections are abandoned", abandoned, opened)
		next := verify.Result(newClient(consul.Options{})).Must(t)
		most := next.Stats().Limit
		total := most + most*3/8
		for _, step := range []struct{ counted, limit, reduction int }{{abandoned, most, 0}, {total - 40, 40, total - 40}, {total, overview.Needed, total - overview.Needed}} {
			next.Reduce(step.counted)
			verify.Equal(t, next.Stats().Limit, step.limit, "with %d connections of another client, of %d", step.counted, most)
			verify.Equal(t, next.Reduction(), step.reduction, "with %d connections of another client, reduction", step.counted)
		}
	})
}
