package consul

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consultest"
	"sluice/discovery"
	"sluice/discovery/discoverytest"
)

// multiplexing is a fake Consul behind HTTP/2.
type multiplexing struct {
	*discoverytest.Consul
	server *httptest.Server
	client *Client
	sets   chan string // what Sink gets: "service-7: a b"
}

// startMultiplexing starts a server with so many streams for each connection,
// none: HTTP/1.1 alone, and watches services of it. Handle wraps its handler.
func startMultiplexing(t *testing.T, streams, services int, handle func(http.Handler) http.Handler) *multiplexing {
	clearEnvironment(t)
	m := &multiplexing{Consul: discoverytest.New(), sets: make(chan string, 10*services)}
	for n := range services {
		m.list(n, "a")
	}
	m.server = httptest.NewUnstartedServer(handle(m.Consul))
	m.server.EnableHTTP2 = streams > 0
	m.server.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams}
	m.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	m.server.StartTLS()
	t.Cleanup(m.server.Close)
	t.Cleanup(m.server.CloseClientConnections)
	var err error
	m.client, err = NewClient(ClientOptions{
		Addresses: []string{m.server.URL}, TLS: TLSOptions{InsecureSkipVerify: true}, Log: zerolog.Nop(),
	})
	must(t, err)
	manager := discovery.NewManager(discovery.ManagerOptions{
		Debounce: discovery.Debounce{Quiet: -1, MaxWait: -1},
		Sink:     func(service string, set []discovery.Instance) { m.sets <- service + ": " + formatSet(set) },
	})
	for n := range services {
		manager.Watch(multiplexedService(n), m.client.Source(ServiceOptions{Service: multiplexedService(n)}))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = manager.Run(ctx) }) // ends with ctx
	t.Cleanup(func() {
		cancel()
		running.Wait()
		m.client.Close()
	})
	for n := range services {
		select {
		case <-m.sets:
		case <-time.After(time.Minute):
			t.Fatalf("%d first sets of %d", n, services)
		}
	}
	return m
}

func multiplexedService(n int) string { return fmt.Sprint("service-", n) }

func (m *multiplexing) list(n int, ids ...string) {
	var entries []*api.ServiceEntry
	for i, id := range ids {
		entries = append(entries, discoverytest.Instance(multiplexedService(n), id, 8000+i))
	}
	m.Set(multiplexedService(n), entries...)
}

func (m *multiplexing) await(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-m.sets:
		if got != want {
			t.Errorf("Sink got %q, want %q", got, want)
		}
	case <-time.After(time.Minute):
		t.Fatalf("Sink did not get %q", want)
	}
}

func asItIs(h http.Handler) http.Handler { return h }

// Net/http dials for each request that finds no connection with room.
func TestAStartOverHTTP2OpensFewConnections(t *testing.T) {
	const services, streams = 500, 100
	m := startMultiplexing(t, streams, services, asItIs)
	// Five would do. Probes, and dials that turn out not to be needed, are a few more.
	const most = 30
	if s := m.client.Stats(); s.Shared || s.Peak > most {
		t.Errorf("%+v: want at most %d connections at a time", s, most)
	}
}

func TestTLSWithoutHTTP2HasAConnectionForEachQuery(t *testing.T) {
	const services = 30
	m := startMultiplexing(t, 0, services, asItIs)
	for n := range services {
		m.list(n, "a", "b")
		m.await(t, multiplexedService(n)+": a b")
	}
	if s := m.client.Stats(); s.Connections < services {
		t.Errorf("%+v: want %d connections", s, services)
	}
}

// A server of Consul does not notice that a query which blocks was cancelled: it
// has taken a stream of its connection until its wait is over.
func TestCancelledQueriesAreNotInTheWayOfThoseAfterThem(t *testing.T) {
	const services, streams = 20, 100
	var mu sync.Mutex
	waiting := 0                      // queries
	cancelled := make(map[string]int) // queries, by connection
	used := 0                         // queries that came on a connection with cancelled ones
	m := startMultiplexing(t, streams, services, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			if cancelled[r.RemoteAddr] > 0 {
				used++
			}
			if r.URL.Query().Has("index") {
				waiting++
			}
			mu.Unlock()
			h.ServeHTTP(w, r)
			mu.Lock()
			defer mu.Unlock()
			if r.URL.Query().Has("index") {
				waiting--
			}
			if r.Context().Err() != nil {
				cancelled[r.RemoteAddr]++
			}
		})
	})
	agents := m.client.agents
	for n := range 3 {
		consultest.Await(t, "every watch waits for Consul", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return waiting == services
		})
		agents.mu.Lock()
		agents.current.breakOff(true, errRecovered)
		agents.mu.Unlock()
		ids := []string{"a", "b", "c", "d"}[:n+2]
		for s := range services {
			m.list(s, ids...)
			m.await(t, fmt.Sprintf("%s: %s", multiplexedService(s), strings.Join(ids, " ")))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(cancelled) == 0 || used > 0 {
		t.Errorf("cancelled queries by connection: %v, and %d queries on these afterwards: want some and none", cancelled, used)
	}
}

// A request in flight may end, and what comes after it has another connection.
func TestConnectionsThatWereLeftAreClosedAfterTheirRequests(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		begun, finish := make(chan struct{}), make(chan struct{})
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				close(begun)
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
		}, (&net.Dialer{}).DialContext, true)
		ask := func(path string) string {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
			var address []byte
			must(t, c.send(r, func(response *http.Response) (err error) {
				address, err = io.ReadAll(response.Body)
				return err
			}))
			return string(address)
		}

		var slow, next string
		var asking sync.WaitGroup
		asking.Go(func() { slow = ask("/slow") })
		<-begun
		c.renew()
		next = ask("/")
		select {
		case address := <-closed:
			t.Errorf("HTTP/2 %v: %s is closed while a request is in flight", http2, address)
		default:
		}
		close(finish)
		asking.Wait()
		if gone := <-closed; gone != slow || next == slow {
			t.Errorf("HTTP/2 %v: %s was closed, and %s served what came after it: want %s closed", http2, gone, next, slow)
		}
		if again := ask("/"); again != next {
			t.Errorf("HTTP/2 %v: %s serves, want %s to be used again", http2, again, next)
		}
		c.renew()
		if gone := <-closed; gone != next {
			t.Errorf("HTTP/2 %v: %s was closed, want %s, which was idle", http2, gone, next)
		}
		server.Close()
	}
}
