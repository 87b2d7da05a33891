package consul_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/certificates"
	"sluice/consul"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// multiplexing is a fake Consul behind HTTP/2.
type multiplexing struct {
	*discoverytest.Consul
	server *httptest.Server
	client *consul.Client
	sets   chan string // what Sink gets: "service-7: a b"
}

// startMultiplexing starts a server with a number of streams per connection (0: HTTP/1.1
// only) and watches its services. handle wraps its handler.
func startMultiplexing(t *testing.T, streams, services int, handle func(http.Handler) http.Handler) *multiplexing {
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
	m.client = verify.Result(consul.New(consul.Options{
		Addresses: []string{m.server.URL}, TLS: consul.TLSOptions{ClientTLS: certificates.ClientTLS{SkipVerify: true}}, Log: zerolog.Nop(),
	})).Must(t)
	manager := discovery.NewManager(discovery.ManagerOptions{
		Sink: func(set discovery.Set) { m.sets <- set.Service + ": " + ids(set.Instances) },
	})
	sources := consulsource.NewSources(m.client, zerolog.Nop())
	for n := range services {
		manager.Watch(multiplexedService(n), sources.Source(consulsource.ServiceOptions{Service: multiplexedService(n), Wait: time.Minute, Probation: time.Minute}))
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
		verify.Equal(t, got, want, "Sink")
	case <-time.After(time.Minute):
		t.Fatalf("Sink did not get %q", want)
	}
}

func unchanged(h http.Handler) http.Handler { return h }

// net/http dials for each request that finds no connection with a free stream.
func TestStartOverHTTP2OpensFewConnections(t *testing.T) {
	t.Parallel()
	const services, streams = 500, 100
	m := startMultiplexing(t, streams, services, unchanged)
	// Five are enough. Probes and superfluous dials add a few, and a machine that stands still adds
	// some: what looks like an outage replaces all. If each request dialed, there would be 128.
	const most = 60
	s := m.client.Stats()
	verify.That(t, s.Peak <= most, "%+v: want at most %d connections at a time", s, most)
}

// After an outage, servers answer in place of the agent's views. They do not get a query for each
// service from each replica, although HTTP/2 would carry them.
func TestServersDoNotGetAQueryForEachServiceAfterAnOutage(t *testing.T) {
	t.Parallel()
	const services = 300
	m := startMultiplexing(t, 100, services, unchanged)
	m.BreakProbes(http.StatusInternalServerError)
	consultest.Await(t, "services share queries", func() bool { return m.client.Stats().Shared })
	m.BreakProbes(0)
	consultest.Await(t, "the agent is healthy", m.client.Healthy)
	begun := len(m.Requests())
	m.list(7, "a", "b")
	for got := ""; got != "service-7: a b"; {
		select {
		case got = <-m.sets:
		case <-time.After(time.Minute):
			t.Fatal("no set after a change")
		}
	}
	blocking := 0
	for _, r := range m.Requests()[begun:] {
		if r.Service != "" && r.Index > 0 {
			blocking++
		}
	}
	verify.That(t, m.client.Stats().Shared && blocking < services/4, "%d queries for services block", blocking)
}

// Consul continues a query that was canceled, and its connection has a stream less. As many
// services as it has streams have their sets at once all the same.
func TestCanceledQueriesTakeNoStreams(t *testing.T) {
	t.Parallel()
	const streams = 20
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	continued := make(chan struct{}, streams)
	m := startMultiplexing(t, streams, 1, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/catalog/nodes" {
				continued <- struct{}{}
				<-release // also when it is canceled
			}
			h.ServeHTTP(w, r)
		})
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for range streams - 1 {
		running.Go(func() {
			q := consul.Query{Path: "catalog/nodes", QueryOptions: api.QueryOptions{WaitIndex: 1, WaitTime: time.Minute}}
			_, _ = m.client.Get(ctx, q, func(io.Reader) error { return nil })
		})
	}
	for range streams - 1 {
		<-continued
	}
	cancel()
	running.Wait()
	for range 2 * streams {
		limited, cancel := context.WithTimeout(t.Context(), consultest.Patience/8)
		q := consul.Query{Path: "health/service/" + multiplexedService(0)}
		_, err := m.client.Get(limited, q, func(io.Reader) error { return nil })
		cancel()
		verify.Require(t, err == nil, "a query after those that were canceled: %v", err)
	}
}

// An agent after a failover may not share connections, as the one before does.
func TestLimitAfterAFailover(t *testing.T) {
	t.Parallel()
	fake, other := discoverytest.New(), discoverytest.Start(t)
	server := httptest.NewUnstartedServer(fake)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	client := verify.Result(consul.New(consul.Options{
		Addresses: []string{server.URL, other.URL()}, TLS: consul.TLSOptions{ClientTLS: certificates.ClientTLS{SkipVerify: true}},
		ProbeInterval: 10 * time.Millisecond, Log: zerolog.Nop(),
	})).Must(t)
	t.Cleanup(client.Close)
	defer client.KeepProbing()()
	limit := func() int {
		limit, _ := client.Capacity()
		return limit
	}
	connections := limit()
	consultest.Await(t, "queries share connections", func() bool { return limit() > connections })
	fake.BreakProbes(http.StatusInternalServerError)
	consultest.Await(t, "each query has its own", func() bool { return client.URL() == other.URL() && limit() == connections })
}

func TestTLSWithoutHTTP2HasOneConnectionPerQuery(t *testing.T) {
	t.Parallel()
	const services = 30
	m := startMultiplexing(t, 0, services, unchanged)
	for n := range services {
		m.list(n, "a", "b")
		m.await(t, multiplexedService(n)+": a b")
	}
	s := m.client.Stats()
	verify.That(t, s.Connections >= services, "%+v: want %d connections", s, services)
}

// A Consul server continues a canceled blocking query, which uses a stream of its
// connection until its wait is over.
func TestQueriesAfterCancellationUseNewConnections(t *testing.T) {
	t.Parallel()
	const services, streams = 20, 100
	var mu sync.Mutex
	waiting := make(map[string]int)   // queries, by connection
	canceled := make(map[string]bool) // connections whose queries were canceled
	used := 0                         // later queries on these
	m := startMultiplexing(t, streams, services, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Has("index") {
				mu.Lock()
				waiting[r.RemoteAddr]++
				if canceled[r.RemoteAddr] {
					used++
				}
				mu.Unlock()
				defer func() {
					mu.Lock()
					defer mu.Unlock()
					if waiting[r.RemoteAddr]--; waiting[r.RemoteAddr] == 0 {
						delete(waiting, r.RemoteAddr)
					}
				}()
			}
			h.ServeHTTP(w, r)
		})
	})
	for n := range 3 {
		consultest.Await(t, "every watch has a blocking query", func() bool {
			mu.Lock()
			defer mu.Unlock()
			all := 0
			for _, queries := range waiting {
				all += queries
			}
			if all < services {
				return false
			}
			for connection := range waiting {
				canceled[connection] = true
			}
			return true
		})
		m.client.CancelQueries()
		ids := []string{"a", "b", "c", "d"}[:n+2]
		for s := range services {
			m.list(s, ids...)
			m.await(t, fmt.Sprintf("%s: %s", multiplexedService(s), strings.Join(ids, " ")))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	verify.That(t, len(canceled) != 0 && used == 0, "%d later queries on the %d connections of canceled ones", used, len(canceled))
}

// ids returns the ids of set, sorted.
func ids(set []discovery.Instance) string {
	var ids []string
	for _, i := range set {
		ids = append(ids, i.ID)
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}
