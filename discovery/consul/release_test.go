package consul

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/consul"
	"sluice/discovery"
	"sluice/discovery/consul/overview"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

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
