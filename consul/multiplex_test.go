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
	"sluice/test/parallel"
	"sluice/test/verify"
)

// multiplexing is a fake Consul behind HTTP/2.
type multiplexing struct {
	*discoverytest.Consul
	server *httptest.Server
	client *consul.Client
	sets   chan string // what Sink gets: "service-7: a b"
}

// startMultiplexing starts a server with a number of streams per connection and watches its
// services. handle wraps its handler.
func startMultiplexing(t *testing.T, streams, services int, handle func(http.Handler) http.Handler) *multiplexing {
	m := &multiplexing{Consul: discoverytest.New(), sets: make(chan string, 10*services)}
	for n := range services {
		m.list(n, "a")
	}
	m.server = httptest.NewUnstartedServer(handle(m.Consul))
	m.server.EnableHTTP2 = true
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
	t.Cleanup(m.client.Close)
	parallel.Run(t, func(ctx context.Context) { _ = manager.Run(ctx) })
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

func unchanged(h http.Handler) http.Handler { return h }

// net/http dials for each request that finds no connection with a free stream.
func TestStartOverHTTP2OpensFewConnections(t *testing.T) {
	t.Parallel()
	const services, streams = 500, 100
	m := startMultiplexing(t, streams, services, unchanged)
	// Five are enough. Probes and superfluous dials add a few, and a machine that stands still
	// adds some: what looks like an outage replaces all. If each request dialed, there would be
	// 128.
	const most = 60
	s := m.client.Stats()
	verify.That(t, s.Peak <= most, "%+v: want at most %d connections at a time", s, most)
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

// ids returns the ids of set, sorted.
func ids(set []discovery.Instance) string {
	var ids []string
	for _, i := range set {
		ids = append(ids, i.ID)
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}
