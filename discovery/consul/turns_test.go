package consul

import (
	"net/http"
	"strings"
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

// inTurns watches many services of a Consul that takes some time for each query that does not
// block, and does not answer a probe before it has answered them. most returns how many it had at a
// time since the last call.
func inTurns(t *testing.T, each time.Duration, f func(t *testing.T, fake *discoverytest.Consul, m *discovery.Manager, most func() int64)) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Minute) }) // until the last queries end
		fake := discoverytest.New()
		var now, most atomic.Int64
		slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v1/health/service/") && !r.URL.Query().Has("index") {
				n := now.Add(1)
				defer now.Add(-1)
				most.Store(max(n, most.Load()))
				time.Sleep(each)
			}
			for r.URL.Path == "/v1/status/leader" && now.Load() > 0 && r.Context().Err() == nil {
				time.Sleep(time.Millisecond)
			}
			fake.ServeHTTP(w, r)
		})
		client, _ := inMemory(t, slow, consul.Options{MaxWatches: 1000, Log: zerolog.Nop()})
		m := discovery.NewManager(discovery.ManagerOptions{Sink: func(discovery.Set) {}})
		for n := range turningServices {
			fake.Set(serviceName(n), discoverytest.Instance(serviceName(n), "a", 1000+n))
			m.Watch(serviceName(n), client.Source(ServiceOptions{Service: serviceName(n)}))
		}
		f(t, fake, m, func() int64 { return most.Swap(0) })
	})
}

// states counts the watches in a state.
func states(m *discovery.Manager, state discovery.Freshness) (n int) {
	synctest.Wait()
	for _, s := range m.Statuses() {
		if s.State == state {
			n++
		}
	}
	return n
}

// All watches of all replicas query at a start and after an outage. A server that gets all of it at
// once answers nothing in time.
func TestQueriesThatDoNotBlockTakeTurns(t *testing.T) {
	t.Parallel()
	inTurns(t, 100*time.Millisecond, func(t *testing.T, fake *discoverytest.Consul, m *discovery.Manager, most func() int64) {
		run(t, m)
		time.Sleep(5 * time.Second)
		verify.Equal(t, states(m, discovery.WatchFresh), turningServices, "fresh watches after the start")
		verify.Equal(t, most(), 16, "queries at a time at the start")

		fake.Break(discoverytest.Fault{Drop: true})
		time.Sleep(10 * time.Second)
		verify.Equal(t, states(m, discovery.WatchStale), turningServices, "stale watches in the outage")
		most()
		fake.Heal()
		time.Sleep(10 * time.Second)
		verify.Equal(t, states(m, discovery.WatchFresh), turningServices, "fresh watches after the outage")
		n := most() // Consul continues those that the recovery has canceled
		verify.That(t, n <= 32, "%d queries at a time after the outage", n)
	})
}

// A watch that waits for its turn tells that the agent fails, as those in flight do.
func TestWatchesThatWaitForTheirTurnFailWithTheAgent(t *testing.T) {
	t.Parallel()
	inTurns(t, 100*time.Millisecond, func(t *testing.T, fake *discoverytest.Consul, m *discovery.Manager, _ func() int64) {
		fake.Break(discoverytest.Fault{Hang: true})
		run(t, m)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for _, s := range m.Statuses() {
			verify.That(t, strings.Contains(s.LastError, "has not answered for 3s"), "status %+v", s)
		}
	})
}

// An agent whose servers are busy with queries answers probes late. That is no outage, after which
// everything would be asked again.
func TestABusyAgentIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	inTurns(t, 250*time.Millisecond, func(t *testing.T, fake *discoverytest.Consul, m *discovery.Manager, _ func() int64) {
		run(t, m)
		time.Sleep(30 * time.Second)
		verify.Equal(t, states(m, discovery.WatchFresh), turningServices, "fresh watches")
		asked := make(map[string]int)
		for _, r := range fake.Requests() {
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
