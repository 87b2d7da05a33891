package consul

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"sluice/test/verify"
)

// A request in flight continues; later requests have another connection.
func TestRenewClosesOldConnectionsAfterTheirRequests(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		started, finish := make(chan struct{}), make(chan struct{})
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				close(started)
				<-finish
			}
			fmt.Fprint(w, r.RemoteAddr)
		}))
		closed := make(chan string, 10)
		server.Config.ConnState = func(c net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				closed <- c.RemoteAddr().String()
			}
		}
		server.EnableHTTP2 = http2
		server.StartTLS()
		c := newConnections(func(dial dialFunc) *http.Transport {
			transport := server.Client().Transport.(*http.Transport).Clone()
			transport.DialContext = dial
			return transport
		}, (&net.Dialer{}).DialContext, new(meter), true, 0)
		get := func(path string) string {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
			var address []byte
			verify.NoError(t, c.send(r, func(response *http.Response) (err error) {
				address, err = io.ReadAll(response.Body)
				return err
			}))
			return string(address)
		}

		var slow, next string
		var running sync.WaitGroup
		running.Go(func() { slow = get("/slow") })
		<-started
		c.renew()
		next = get("/")
		select {
		case address := <-closed:
			t.Errorf("HTTP/2 %v: %s was closed with a request in flight", http2, address)
		default:
		}
		close(finish)
		running.Wait()
		verify.Equal(t, <-closed, slow, "HTTP/2 %v: closed", http2)
		verify.That(t, next != slow, "HTTP/2 %v: the next request was on the former connection", http2)
		verify.Equal(t, get("/"), next, "HTTP/2 %v: the last request was on", http2)
		c.renew()
		verify.Equal(t, <-closed, next, "HTTP/2 %v: closed, when it is idle", http2)
		server.Close()
	}
}

// A former connection closes with its own request, whatever others do: an agent counts it.
func TestRenewLeavesNoIdleConnection(t *testing.T) {
	started, finish := make(chan struct{}), map[string]chan struct{}{"/a": make(chan struct{}), "/b": make(chan struct{})}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started <- struct{}{}
		<-finish[r.URL.Path]
	}))
	closed := make(chan struct{}, 2)
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			closed <- struct{}{}
		}
	}
	server.Start()
	defer server.Close()
	c := newConnections(func(dial dialFunc) *http.Transport { return &http.Transport{DialContext: dial} }, (&net.Dialer{}).DialContext, new(meter), false, 0)
	var running sync.WaitGroup
	for path := range finish {
		running.Go(func() {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
			verify.Succeeds(t, c.send(r, func(response *http.Response) error {
				_, err := io.Copy(io.Discard, response.Body)
				return err
			}))
		})
		<-started
	}
	c.renew()
	close(finish["/a"])
	select {
	case <-closed:
	case <-time.After(time.Minute):
		t.Error("the connection of /a stays open while /b is in flight")
	}
	close(finish["/b"])
	running.Wait()
}

// The agent before continues the queries that were canceled, so they use streams of its connections
// for a while.
func TestConnectionsAreReplacedWhenThePreferredAgentReturns(t *testing.T) {
	client := verify.Result(New(Options{Addresses: []string{"http://preferred", "http://other"}})).Must(t)
	defer client.Close()
	preferred, other := client.agents.all[0], client.agents.all[1]
	client.agents.current = other
	before := other.connections.current
	client.agents.switchToBest(time.Now())
	verify.That(t, client.agents.inUse() == preferred && before.replaced, "in use %s, connections replaced: %v", client.URL(), before.replaced)
}

// limitedAgent is an agent that accepts a number of connections and, like Consul's,
// answers 429 to others before it has a request. It returns its address, and a channel
// with an element for each accepted connection that was closed.
func limitedAgent(t *testing.T, limit int) (address string, closed <-chan struct{}) {
	t.Helper()
	l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	var mu sync.Mutex
	counted := make(map[net.Conn]bool)
	gone := make(chan struct{}, 10)
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Consul-Index", "1")
			w.Header().Set("X-Consul-KnownLeader", "true")
			if r.URL.Path == "/v1/status/leader" {
				fmt.Fprint(w, `"127.0.0.1:8300"`)
				return
			}
			fmt.Fprint(w, "[]")
		}),
		ConnState: func(conn net.Conn, state http.ConnState) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case state == http.StateNew && len(counted) < limit:
				counted[conn] = true
			case state == http.StateNew:
				_, _ = io.WriteString(conn, "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlimit")
				_ = conn.Close()
			case state == http.StateClosed && counted[conn]:
				delete(counted, conn)
				gone <- struct{}{}
			}
		},
	}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(l) }) // ends with Close
	t.Cleanup(func() {
		_ = server.Close()
		running.Wait()
	})
	return l.Addr().String(), gone
}

// An agent answers 429 to a connection above its limit before it has a request. However
// soon the answer arrives, it counts as the answer to the request.
func TestAnswer429BeforeTheRequest(t *testing.T) {
	address, _ := limitedAgent(t, 0)
	client := verify.Result(New(Options{Addresses: []string{address}})).Must(t)
	defer client.Close()
	const queries = 50
	for range queries {
		_, err := client.Get(t.Context(), Query{Path: "catalog/nodes"}, func(io.Reader) error { return nil })
		verify.Require(t, StatusCode(err) == http.StatusTooManyRequests, "query: %v", err)
		c, err := client.agents.inUse().probe(t.Context(), time.Minute)
		verify.Require(t, c == degraded && StatusCode(err) == http.StatusTooManyRequests, "probe: %v, %v", c, err)
	}
	s := client.Stats()
	verify.That(t, s.Refused == 2*queries && s.Errors == 2*queries, "%+v: want %d answers 429, each an error", s, 2*queries)
}

// net/http closes a refused connection at once: the request that is written to it then fails with
// the answer 429, and not as a write to a closed connection.
func TestWriteToARefusedConnection(t *testing.T) {
	client, agent := net.Pipe()
	defer agent.Close()
	var answering sync.WaitGroup
	defer answering.Wait()
	answering.Go(func() {
		_, _ = io.WriteString(agent, "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
	})
	all := newConnections(func(dialFunc) *http.Transport { return new(http.Transport) }, nil, new(meter), false, 0)
	conn := &connection{Conn: client, connections: all, generation: all.current}
	_, read := conn.Read(make([]byte, 1024))
	verify.NoError(t, conn.Close())
	_, written := conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	for operation, err := range map[string]error{"read": read, "write": written} {
		refused := (*refusal)(nil)
		verify.Require(t, errors.As(err, &refused), "%s: %v, want a refusal", operation, err)
		verify.Equal(t, refused.response.StatusCode, http.StatusTooManyRequests, "status")
	}
}

// Idle connections of queries do not take the place of the probes' one for long.
func TestProbesGetAConnectionOfALimitedAgent(t *testing.T) {
	address, closed := limitedAgent(t, 1)
	client := verify.Result(New(Options{Addresses: []string{address}})).Must(t)
	defer client.Close()
	_, err := client.Get(t.Context(), Query{Path: "catalog/nodes"}, func(body io.Reader) error {
		_, err := io.Copy(io.Discard, body)
		return err
	})
	verify.NoError(t, err)
	agent := client.agents.inUse()
	c, err := agent.probe(t.Context(), time.Minute)
	verify.Require(t, c == degraded && StatusCode(err) == http.StatusTooManyRequests, "first probe: %v, %v", c, err)
	<-closed
	c, err = agent.probe(t.Context(), time.Minute)
	verify.Require(t, c == healthy, "second probe: %v, %v", c, err)
}
