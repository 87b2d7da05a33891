package consul

import (
	"testing"
	"time"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/verify"
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
	client := realClient(t, consul.Options{Addresses: []string{agent.URL(), server.URL()}, ReturnAfter: time.Second})
	r := recordClient(t, client, ServiceOptions{Service: "star"})
	r.await("a")
	r.awaitStatus("served by the first agent", freshFrom(agent.URL()))

	verify.NoError(t, agent.Pause())
	begin := time.Now()
	registerTTL(t, server, "star", "b", 8002, nil)
	r.await("a b")
	t.Logf("a change arrived %v after the agent was paused", time.Since(begin).Round(time.Millisecond))
	r.awaitStatus("served by the second agent", freshFrom(server.URL()))

	verify.NoError(t, agent.Resume())
	r.awaitStatus("back at the first agent", freshFrom(agent.URL()))

	verify.NoError(t, agent.Kill())
	begin = time.Now()
	registerTTL(t, server, "star", "c", 8003, nil)
	r.await("a b c")
	t.Logf("a change arrived %v after the agent was killed", time.Since(begin).Round(time.Millisecond))
}
