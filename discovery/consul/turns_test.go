package consul

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

const turningServices = 400

// turns are many services and watches of them.
type turns struct {
	*discoverytest.Consul
	client   *testClient
	watches  *discovery.Manager
	now, top atomic.Int64 // queries that do not block
}

// most returns how many of the queries that do not block Consul had at a time since the last call.
func (s *turns) most() int64 { return s.top.Swap(0) }

// states counts the watches in a state.
func (s *turns) states(state discovery.Freshness) (n int) {
	synctest.Wait()
	for _, status := range s.watches.Statuses() {
		if status.State == state {
			n++
		}
	}
	return n
}

// inTurns calls f with watches, which do not run yet, of a Consul that takes some time for each
// query that does not block, and does not answer a probe before it has answered them.
func inTurns(t *testing.T, connections int, each time.Duration, f func(t *testing.T, s *turns)) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Minute) }) // until the last queries end
		s := &turns{Consul: discoverytest.New(), watches: discovery.NewManager(discovery.ManagerOptions{Sink: func(discovery.Set) {}})}
		slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v1/health/service/") && !r.URL.Query().Has("index") {
				n := s.now.Add(1)
				defer s.now.Add(-1)
				s.top.Store(max(n, s.top.Load()))
				time.Sleep(each)
			}
			for r.URL.Path == "/v1/status/leader" && s.now.Load() > 0 && r.Context().Err() == nil {
				time.Sleep(time.Millisecond)
			}
			s.ServeHTTP(w, r)
		})
		s.client, _ = inMemory(t, slow, consul.Options{MaxWatches: connections, Log: zerolog.Nop()})
		for n := range turningServices {
			s.Set(serviceName(n), discoverytest.Instance(serviceName(n), "a", 1000+n))
			s.watches.Watch(serviceName(n), s.client.Source(ServiceOptions{Service: serviceName(n)}))
		}
		f(t, s)
	})
}

// All watches of all replicas query at a start and after an outage. A server that gets all of it at
// once answers nothing in time.
func TestQueriesThatDoNotBlockTakeTurns(t *testing.T) {
	t.Parallel()
	inTurns(t, 1000, 100*time.Millisecond, func(t *testing.T, s *turns) {
		run(t, s.watches)
		time.Sleep(5 * time.Second)
		verify.Equal(t, s.states(discovery.WatchFresh), turningServices, "fresh watches after the start")
		verify.Equal(t, s.most(), 16, "queries at a time at the start")

		s.Break(discoverytest.Fault{Drop: true})
		time.Sleep(10 * time.Second)
		verify.Equal(t, s.states(discovery.WatchStale), turningServices, "stale watches in the outage")
		s.most()
		s.Heal()
		time.Sleep(10 * time.Second)
		verify.Equal(t, s.states(discovery.WatchFresh), turningServices, "fresh watches after the outage")
		n := s.most() // Consul continues those that the recovery has canceled
		verify.That(t, n <= 32, "%d queries at a time after the outage", n)
	})
}

// A watch that waits for its turn tells that the agent fails, as those in flight do.
func TestWatchesThatWaitForTheirTurnFailWithTheAgent(t *testing.T) {
	t.Parallel()
	inTurns(t, 1000, 100*time.Millisecond, func(t *testing.T, s *turns) {
		s.Break(discoverytest.Fault{Hang: true})
		run(t, s.watches)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for _, status := range s.watches.Statuses() {
			verify.That(t, strings.Contains(status.LastError, "has not answered for 3s"), "status %+v", status)
		}
	})
}

// names queries the names of all services, which is no query that takes turns.
func (s *turns) names(t *testing.T) {
	_, err := s.client.Get(t.Context(), consul.Query{Path: "catalog/services"}, func(io.Reader) error { return nil })
	verify.NoError(t, err)
}

// Few of many queries that take turns are before another one, also if the connections are fewer
// than the turns.
func TestTurnsDelayNoOtherQuery(t *testing.T) {
	t.Parallel()
	for connections, most := range map[int]int64{100: 0, 10: 16} {
		inTurns(t, connections, 100*time.Millisecond, func(t *testing.T, s *turns) {
			var answered atomic.Int64
			var running sync.WaitGroup
			for n := range turningServices {
				running.Go(func() {
					_, err := s.client.Health(t.Context(), ServiceOptions{Service: serviceName(n)})
					verify.NoError(t, err)
					answered.Add(1)
				})
			}
			time.Sleep(150 * time.Millisecond)
			before := answered.Load()
			s.names(t)
			n := answered.Load() - before
			verify.That(t, n <= most, "with %d connections, %d queries were answered before the other one, want %d", connections, n, most)
			running.Wait()
		})
	}
}

// An agent whose servers are busy with queries answers probes late. That is no outage, after which
// everything would be asked again.
func TestABusyAgentIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	inTurns(t, 1000, 250*time.Millisecond, func(t *testing.T, s *turns) {
		run(t, s.watches)
		time.Sleep(30 * time.Second)
		verify.Equal(t, s.states(discovery.WatchFresh), turningServices, "fresh watches")
		asked := make(map[string]int)
		for _, r := range s.Requests() {
			if r.Index == 0 {
				asked[r.Service]++
			}
			verify.Equal(t, r.Near, "", "the agent's view is bypassed: %+v", r)
		}
		for service, n := range asked {
			verify.Equal(t, n, 1, "queries for all instances of %s", service)
		}
	})
}
