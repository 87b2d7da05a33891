//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// registry answers the queries of sluice, also blocking ones, like an agent of Consul, for
// many services with the same instances. A real Consul with ten thousand services would need
// the whole machine. Its methods may be called concurrently.
type registry struct {
	server    http.Server
	address   string
	instances []json.RawMessage
	services  map[string]*registered
	names     []string
}

// registered is one service of a registry.
type registered struct {
	mu      sync.Mutex // guards the fields below
	index   uint64
	count   int           // of the registry's instances, the first ones
	changed chan struct{} // closed at the next change
}

// newRegistry serves n services with an instance at each of addresses until
// close.
func newRegistry(n int, addresses []string) (*registry, error) {
	r := &registry{services: make(map[string]*registered)}
	for i, address := range addresses {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		p, err := strconv.Atoi(port)
		if err != nil {
			return nil, err
		}
		instance, err := json.Marshal(entry(i, host, p))
		if err != nil {
			return nil, err
		}
		r.instances = append(r.instances, instance)
	}
	for i := range n {
		name := "service-" + strconv.Itoa(i)
		r.names = append(r.names, name)
		r.services[name] = &registered{index: 1, count: len(addresses), changed: make(chan struct{})}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen as Consul: %w", err)
	}
	r.address = l.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/health/service/{name}", r.health)
	mux.HandleFunc("GET /v1/status/leader", func(w http.ResponseWriter, _ *http.Request) {
		common(w.Header())
		_, _ = io.WriteString(w, `"127.0.0.1:8300"`)
	})
	r.server.Handler = mux
	go func() { _ = r.server.Serve(l) }()
	return r, nil
}

func (r *registry) close() { _ = r.server.Close() }

// entry is an instance in Consul's format, with a check of its node and one of the service:
// about 1.3 kB.
func entry(n int, host string, port int) api.ServiceEntry {
	id, node := instanceID(n), "bench"
	address := api.ServiceAddress{Address: host, Port: port}
	return api.ServiceEntry{
		Node: &api.Node{
			ID: "68c750e7-716d-43c3-cfb3-0fe8faacdc42", Node: node, Address: host, Datacenter: "dc1",
			TaggedAddresses: map[string]string{"lan": host, "lan_ipv4": host, "wan": host, "wan_ipv4": host},
			Meta:            map[string]string{"consul-network-segment": "", "consul-version": "1.22.7"},
			CreateIndex:     13, ModifyIndex: 16,
		},
		Service: &api.AgentService{
			ID: id, Service: "service", Tags: []string{"v1"}, Meta: map[string]string{"version": "1.4.2"},
			Address: host, Port: port,
			TaggedAddresses: map[string]api.ServiceAddress{"lan_ipv4": address, "wan_ipv4": address},
			Weights:         api.AgentWeights{Passing: 1, Warning: 1},
			CreateIndex:     18, ModifyIndex: 18,
		},
		Checks: api.HealthChecks{
			{Node: node, CheckID: "serfHealth", Name: "Serf Health Status", Status: api.HealthPassing, Output: "Agent alive and reachable"},
			{Node: node, CheckID: "service:" + id, Name: "Service check", Status: api.HealthPassing, Output: "HTTP GET http://" + host + "/health: 200 OK",
				ServiceID: id, ServiceName: "service", ServiceTags: []string{"v1"}, Type: "http"},
		},
	}
}

// common sets the header fields of all responses of an agent.
func common(h http.Header) {
	h.Set("Content-Type", "application/json")
	h.Set("Vary", "Accept-Encoding")
	h.Set("X-Consul-Default-Acl-Policy", "allow")
}

// health answers when the index exceeds the query's, or after its wait.
func (r *registry) health(w http.ResponseWriter, request *http.Request) {
	query := request.URL.Query()
	known, _ := strconv.ParseUint(query.Get("index"), 10, 64) // none is 0
	wait, err := time.ParseDuration(query.Get("wait"))
	if err != nil {
		wait = 5 * time.Minute
	}
	wait += rand.N(wait/16 + 1) // so that not all end at once
	index, count := r.services[request.PathValue("name")].await(request.Context(), known, wait)
	h := w.Header()
	common(h)
	h.Set("X-Consul-Index", strconv.FormatUint(index, 10))
	h.Set("X-Consul-LastContact", "0")
	h.Set("X-Consul-Effective-Consistency", "leader")
	if query.Has("consistent") {
		h.Set("X-Consul-Effective-Consistency", "consistent")
	}
	// An agent answers blocking queries from a stream, without the state of the leader, so
	// sluice confirms that an instance is removed. This does not apply to queries with near.
	streaming := known > 0 && !query.Has("near")
	h.Set("X-Consul-KnownLeader", strconv.FormatBool(!streaming))
	h.Set("X-Consul-Query-Backend", api.QueryBackendBlockingQuery)
	if streaming {
		h.Set("X-Consul-Query-Backend", api.QueryBackendStreaming)
	}
	body, err := json.Marshal(r.wanted(count, query.Get("filter")))
	if err != nil {
		panic(err) // no JSON in instances
	}
	_, _ = w.Write(body)
}

// wanted returns, of the first count instances, the ones whose ids are in filter. sluice sends
// only this filter, to confirm that up to four instances are removed; it confirms more
// without a filter.
func (r *registry) wanted(count int, filter string) []json.RawMessage {
	if filter == "" {
		return r.instances[:count]
	}
	wanted := []json.RawMessage{}
	for i, instance := range r.instances[:count] {
		if strings.Contains(filter, fmt.Sprintf("Service.ID == %q", instanceID(i))) {
			wanted = append(wanted, instance)
		}
	}
	return wanted
}

func instanceID(n int) string { return "instance-" + strconv.Itoa(n) }

// await returns the present state when its index exceeds known, or at the end of wait or ctx.
// nil is a service without instances, which does not change.
func (s *registered) await(ctx context.Context, known uint64, wait time.Duration) (index uint64, count int) {
	if s == nil {
		s = &registered{index: 1}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for over := false; ; {
		s.mu.Lock()
		index, count = s.index, s.count
		changed := s.changed
		s.mu.Unlock()
		if index > known || over {
			return index, count
		}
		select {
		case <-changed:
		case <-timer.C:
			over = true
		case <-ctx.Done():
			over = true
		}
	}
}

// change removes the last instance of a service, or adds it again.
func (s *registered) change(all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == all {
		s.count--
	} else {
		s.count++
	}
	s.index++
	close(s.changed)
	s.changed = make(chan struct{})
}

// churn changes perSecond services a second, at random, until ctx ends.
func (r *registry) churn(ctx context.Context, perSecond int) {
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.services[r.names[rand.IntN(len(r.names))]].change(len(r.instances))
		}
	}
}
