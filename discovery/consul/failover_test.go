package consul

import (
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/long"
)

// freshFrom reports whether the agent at url serves the watch.
func freshFrom(url string) func(discovery.WatchStatus) bool {
	return func(s discovery.WatchStatus) bool { return s.Endpoint == url && s.State == discovery.WatchFresh }
}

// TestRealAgentThatIsStopped pauses the agent in use, kills it, and starts it again.
// Meanwhile the other agent serves.
func TestRealAgentThatIsStopped(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t, consultest.Options{Node: "server"})
	agent := consultest.Start(t, consultest.Options{Mode: consultest.Client, Node: "client", Join: []string{server.SerfAddress()}})
	registerTTL(t, server, "star", "a", 8001, nil)
	client, err := newClient(consul.Options{Addresses: []string{agent.URL(), server.URL()}, Log: zerolog.New(zerolog.NewTestWriter(t)), ReturnAfter: time.Second})
	must(t, err)
	t.Cleanup(client.Close)
	r := recordClient(t, client, ServiceOptions{Service: "star"})
	r.await("a")
	r.awaitStatus("served by the first agent", freshFrom(agent.URL()))

	must(t, agent.Pause())
	begin := time.Now()
	registerTTL(t, server, "star", "b", 8002, nil)
	r.await("a b")
	t.Logf("a change arrived %v after the agent was paused", time.Since(begin).Round(time.Millisecond))
	r.awaitStatus("served by the second agent", freshFrom(server.URL()))

	must(t, agent.Resume())
	r.awaitStatus("back at the first agent", freshFrom(agent.URL()))

	must(t, agent.Kill())
	begin = time.Now()
	registerTTL(t, server, "star", "c", 8003, nil)
	r.await("a b c")
	t.Logf("a change arrived %v after the agent was killed", time.Since(begin).Round(time.Millisecond))
}

// TestRealHalfOpenConnection makes the connections to the only agent half-open. The
// watch becomes stale, keeps its instances, and recovers with new connections.
func TestRealHalfOpenConnection(t *testing.T) {
	t.Parallel()
	long.Test(t)
	agent := consultest.Start(t, consultest.Options{Node: "node-1"})
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	registerTTL(t, agent, "star", "a", 8001, nil)
	r := watchRealClient(t, consul.Options{Addresses: []string{relay.URL()}}, ServiceOptions{Service: "star"})
	r.await("a")
	r.awaitStatus("fresh", freshFrom(relay.URL()))
	relay.Hang()
	r.awaitStatus("stale", func(s discovery.WatchStatus) bool {
		return s.State == discovery.WatchStale && s.Instances == 1 && strings.Contains(s.LastError, "has not answered for")
	})
	registerTTL(t, agent, "star", "b", 8002, nil)
	r.quiet()
	relay.Heal()
	begin := time.Now()
	r.await("a b")
	t.Logf("the change arrived %v after the end of the fault", time.Since(begin).Round(time.Millisecond))

	relay.Cut()
	r.awaitStatus("stale", func(s discovery.WatchStatus) bool { return s.State == discovery.WatchStale })
	registerTTL(t, agent, "star", "c", 8003, nil)
	relay.Heal()
	begin = time.Now()
	r.await("a b c")
	t.Logf("the change arrived %v after the end of the cut", time.Since(begin).Round(time.Millisecond))
}
