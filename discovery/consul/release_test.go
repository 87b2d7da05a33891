package consul

import (
	"fmt"
	"net"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/consul"
	"sluice/discovery"
	"sluice/discovery/consul/overview"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// slowListener counts open connections. Its connections wait before they close.
type slowListener struct {
	net.Listener
	open atomic.Int64
	wait func() // before a connection is closed
}

func (l *slowListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.open.Add(1)
		c = &slowConn{Conn: c, listener: l}
	}
	return c, err
}

type slowConn struct {
	net.Conn
	listener *slowListener
	once     sync.Once
}

func (c *slowConn) Close() error {
	c.once.Do(func() {
		c.listener.wait()
		c.listener.open.Add(-1)
	})
	return c.Conn.Close()
}

// blockedWatches are watches with blocking queries.
type blockedWatches struct {
	*discovery.Manager
	fake     *discoverytest.Consul
	listener *slowListener
	client   *testClient
}

const blocked = 20

func blockWatches(t *testing.T, wait func()) *blockedWatches {
	t.Helper()
	fake := discoverytest.New()
	server := httptest.NewUnstartedServer(fake)
	listener := &slowListener{Listener: server.Listener, wait: wait}
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	client, err := newClient(consul.Options{Addresses: []string{server.URL}})
	must(t, err)
	m := discovery.NewManager(discovery.ManagerOptions{Sink: func(string, []discovery.Instance) {}})
	for n := range blocked {
		name := fmt.Sprint("s", n)
		fake.Set(name, discoverytest.Instance(name, "a", 1000+n))
		m.Watch(name, client.Source(ServiceOptions{Service: name}))
	}
	t.Cleanup(client.Close)
	run(t, m)
	awaitThat(t, "all queries block", func() bool {
		indexed := make(map[string]bool)
		for _, r := range fake.Requests() {
			if r.Index > 0 {
				indexed[r.Service] = true
			}
		}
		return len(indexed) == blocked
	})
	if n := listener.open.Load(); n < blocked {
		t.Fatalf("%d connections", n)
	}
	return &blockedWatches{m, fake, listener, client}
}

func TestReleaseWaitsUntilTheAgentHasClosedTheConnections(t *testing.T) {
	w := blockWatches(t, func() { time.Sleep(100 * time.Millisecond) }) // a busy agent
	verify.Equal(t, w.client.Release(w.Pause), 0, "connections are abandoned")
	verify.Equal(t, w.listener.open.Load(), 0, "the agent still has connections")
	verify.Equal(t, w.client.Stats().Connections, 0, "the client still has connections")
	before := len(w.fake.Requests())
	w.Resume()
	w.fake.Set("s7", discoverytest.Instance("s7", "a", 1), discoverytest.Instance("s7", "b", 2))
	awaitThat(t, "a change is seen", func() bool {
		return slices.ContainsFunc(w.Statuses(), func(s discovery.WatchStatus) bool { return s.Service == "s7" && s.Instances == 2 })
	})
	verify.That(t, len(w.fake.Requests()) != before, "no query after Resume")
}

// The next client opens fewer connections than the agent has left open.
func TestReleaseCountsConnectionsThatTheAgentLeavesOpen(t *testing.T) {
	t.Parallel()
	closing := make(chan struct{})
	w := blockWatches(t, func() { <-closing })
	t.Cleanup(func() { close(closing) })
	abandoned := w.client.Release(w.Pause)
	// Including those of probes, and superfluous ones of net/http.
	opened := w.client.Stats().Opened
	verify.That(t, abandoned >= blocked && uint64(abandoned) <= opened, "%d of %d connections are abandoned", abandoned, opened)
	next, err := newClient(consul.Options{})
	must(t, err)
	most := next.Stats().Limit
	next.Reduce(abandoned)
	if limit, short := next.Stats().Limit, next.Reduction(); limit != most-abandoned || short != abandoned {
		t.Errorf("the next client has %d of %d connections, reduction %d", limit, most, short)
	}
	next.Reduce(most)
	verify.Equal(t, next.Stats().Limit, overview.Needed, "lowest limit")
}

// awaitThat waits until condition holds.
func awaitThat(t *testing.T, what string, condition func() bool) {
	t.Helper()
	consultest.Await(t, what, condition)
}
