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

	"sluice/discovery"
	"sluice/discovery/discoverytest"
)

// slowListener counts connections until they are closed, which takes a moment.
type slowListener struct {
	net.Listener
	open atomic.Int64
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
		time.Sleep(100 * time.Millisecond) // an agent that has much to do
		c.listener.open.Add(-1)
	})
	return c.Conn.Close()
}

// An agent has none of the connections any more when Release returns, although it
// takes its time; and later the watches go on.
func TestReleaseWaitsUntilTheAgentHasClosedTheConnections(t *testing.T) {
	const services = 20
	fake := discoverytest.New()
	server := httptest.NewUnstartedServer(fake)
	listener := &slowListener{Listener: server.Listener}
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	client, err := NewClient(ClientOptions{Addresses: []string{server.URL}})
	must(t, err)
	m := discovery.NewManager(discovery.ManagerOptions{Sink: func(string, []discovery.Instance) {}})
	for n := range services {
		name := fmt.Sprint("s", n)
		fake.Set(name, discoverytest.Instance(name, "a", 1000+n))
		m.Watch(name, client.Source(ServiceOptions{Service: name}))
	}
	var run sync.WaitGroup
	run.Go(func() { m.Run(t.Context()) })
	t.Cleanup(func() {
		run.Wait()
		client.Close()
	})
	// Each has a connection on which a query blocks.
	blocking := func() bool {
		indexed := make(map[string]bool)
		for _, r := range fake.Requests() {
			indexed[r.Service] = indexed[r.Service] || r.Index > 0
		}
		for _, blocks := range indexed {
			if !blocks {
				return false
			}
		}
		return len(indexed) == services
	}
	awaitThat(t, "all queries block", blocking)
	if n := listener.open.Load(); n < services {
		t.Fatalf("%d connections", n)
	}

	client.Release(m.Pause)
	if n := listener.open.Load(); n != 0 {
		t.Errorf("the agent still has %d connections", n)
	}
	if n := client.Stats().Connections; n != 0 {
		t.Errorf("the client still has %d connections", n)
	}
	before := len(fake.Requests())
	m.Resume()
	fake.Set("s7", discoverytest.Instance("s7", "a", 1), discoverytest.Instance("s7", "b", 2))
	awaitThat(t, "a change is seen", func() bool {
		return slices.ContainsFunc(m.Statuses(), func(s discovery.WatchStatus) bool { return s.Service == "s7" && s.Instances == 2 })
	})
	if len(fake.Requests()) == before {
		t.Error("nobody has asked")
	}
}

// awaitThat waits until condition holds.
func awaitThat(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
