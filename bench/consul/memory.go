//go:build linux

package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// memoryCommand is the first argument of the process with a catalogue in memory.
const memoryCommand = "memory"

// memory is a catalogue that answers what sluice asks Consul, as an agent with streaming does. It
// has no raft, no gossip and no filters, so what is measured beside it is sluice's. It is an
// http.Handler, and safe for concurrent use.
type memory struct {
	http.ServeMux

	mu     sync.Mutex // guards the fields below
	index  uint64
	nodes  map[string]*api.Node
	topics map[string]*topic // by the path of the query
}

// topic is what one path answers, and what wakes its queries.
type topic struct {
	index   uint64
	changed chan struct{} // closed, and replaced, at each change
	entries map[string]*api.ServiceEntry
	checks  map[string]*api.HealthCheck
}

// serveMemory runs a catalogue until it gets a signal. It prints the addresses of its listeners:
// one for http, one for https.
func serveMemory(args []string) error {
	flags := flag.NewFlagSet(memoryCommand, flag.ContinueOnError)
	cert := flags.String("cert", "", "`file` with the certificate")
	key := flags.String("key", "", "`file` with its key")
	if err := flags.Parse(args); err != nil {
		return err
	}
	m := &memory{index: 1, nodes: make(map[string]*api.Node), topics: make(map[string]*topic)}
	m.HandleFunc("GET /v1/status/leader", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `"127.0.0.1:8300"`) })
	m.HandleFunc("PUT /v1/catalog/register", change(func(r *api.CatalogRegistration) { m.register(r.Node, r.Service, r.Checks) }))
	m.HandleFunc("PUT /v1/catalog/deregister", change(func(r *api.CatalogDeregistration) { m.deregister(r.Node, r.ServiceID) }))
	m.HandleFunc("PUT /v1/txn", m.transact)
	m.HandleFunc("GET /v1/", m.query)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	encrypted, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(plain.Addr(), encrypted.Addr())
	server := &http.Server{Handler: m}
	if *cert == "" {
		return server.Serve(plain)
	}
	go func() { _ = server.ServeTLS(encrypted, *cert, *key) }() // ends with the process
	return server.Serve(plain)
}

// change returns a handler that decodes a request, and applies it.
func change[T any](apply func(*T)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		request := new(T)
		if err := json.NewDecoder(r.Body).Decode(request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		apply(request)
		fmt.Fprint(w, "true")
	}
}

// transact applies the operations by which catalog.fill fills the catalogue.
func (m *memory) transact(w http.ResponseWriter, r *http.Request) {
	var ops api.TxnOps
	if err := json.NewDecoder(r.Body).Decode(&ops); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for n, op := range ops {
		switch {
		case op.Node != nil:
			m.mu.Lock()
			m.nodes[op.Node.Node.Node] = &op.Node.Node
			m.touchLocked("catalog/nodes")
			m.mu.Unlock()
		case op.Service != nil:
			var checks api.HealthChecks
			if n+1 < len(ops) && ops[n+1].Check != nil {
				checks = api.HealthChecks{&ops[n+1].Check.Check}
			}
			m.register(op.Service.Node, &op.Service.Service, checks)
		}
	}
	_ = json.NewEncoder(w).Encode(api.TxnResponse{}) // the client is gone
}

// register adds or replaces an instance. As in Consul, only what differs has a new index.
func (m *memory) register(node string, s *api.AgentService, checks api.HealthChecks) {
	m.mu.Lock()
	defer m.mu.Unlock()
	onNode := m.topicLocked("catalog/node-services/" + node)
	old := onNode.entries[s.ID]
	m.index++
	s.CreateIndex, s.ModifyIndex = m.index, m.index
	if old != nil { // the bench changes checks only
		s = old.Service
	}
	e := &api.ServiceEntry{Node: m.nodes[node], Service: s, Checks: checks}
	onNode.entries[s.ID] = e
	m.topicLocked("health/service/" + s.Service).entries[node+"/"+s.ID] = e
	m.touchLocked("health/service/" + s.Service)
	for _, c := range checks {
		c.ServiceName = s.Service // as Consul does
		m.setCheckLocked(c)
	}
	if old == nil {
		m.touchLocked("catalog/node-services/"+node, "catalog/services")
	}
}

// setCheckLocked puts a check into the list of its state.
func (m *memory) setCheckLocked(c *api.HealthCheck) {
	c.ModifyIndex = m.index
	for _, status := range []string{api.HealthCritical, api.HealthWarning} {
		path := "health/state/" + status
		id := c.Node + "/" + c.CheckID
		if _, was := m.topicLocked(path).checks[id]; was || c.Status == status {
			delete(m.topics[path].checks, id)
			if c.Status == status {
				m.topics[path].checks[id] = c
			}
			m.touchLocked(path)
		}
	}
}

func (m *memory) deregister(node, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	onNode := m.topicLocked("catalog/node-services/" + node)
	e := onNode.entries[id]
	if e == nil {
		return
	}
	m.index++
	delete(onNode.entries, id)
	path := "health/service/" + e.Service.Service
	delete(m.topicLocked(path).entries, node+"/"+id)
	for _, c := range e.Checks {
		m.setCheckLocked(&api.HealthCheck{Node: c.Node, CheckID: c.CheckID})
	}
	m.touchLocked(path, "catalog/node-services/"+node, "catalog/services")
}

func (m *memory) topicLocked(path string) *topic {
	t := m.topics[path]
	if t == nil {
		t = &topic{index: m.index, changed: make(chan struct{}), entries: make(map[string]*api.ServiceEntry), checks: make(map[string]*api.HealthCheck)}
		m.topics[path] = t
	}
	return t
}

// touchLocked gives paths the present index, and wakes their queries.
func (m *memory) touchLocked(paths ...string) {
	for _, path := range paths {
		t := m.topicLocked(path)
		t.index = m.index
		close(t.changed)
		t.changed = make(chan struct{})
	}
}

// query answers a path of Consul's API when its index is above the one of the request, or its wait
// is over.
func (m *memory) query(w http.ResponseWriter, r *http.Request) {
	path, query := strings.TrimPrefix(r.URL.Path, "/v1/"), r.URL.Query()
	after, _ := strconv.ParseUint(query.Get("index"), 10, 64) // none: 0
	wait, _ := time.ParseDuration(query.Get("wait"))
	over := time.NewTimer(wait)
	defer over.Stop()
	for blocks := after > 0; ; {
		index, changed, answer := m.look(path, query.Get("filter"), after, blocks)
		if answer != nil {
			w.Header().Set("X-Consul-Index", strconv.FormatUint(index, 10))
			w.Header().Set("X-Consul-KnownLeader", "true")
			_ = json.NewEncoder(w).Encode(answer) // the client is gone
			return
		}
		select {
		case <-changed:
		case <-over.C:
			blocks = false
		case <-r.Context().Done():
			return
		}
	}
}

// look returns what a path answers now, or nil and what to wait for.
func (m *memory) look(path, filter string, after uint64, blocks bool) (index uint64, changed <-chan struct{}, answer any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.topicLocked(path)
	if blocks && t.index <= after {
		return t.index, t.changed, nil
	}
	node, isNode := strings.CutPrefix(path, "catalog/node-services/")
	switch {
	case path == "catalog/nodes":
		answer = slices.Collect(maps.Values(m.nodes))
	case path == "catalog/services":
		answer = map[string][]string{} // only its index is read
	case strings.HasPrefix(path, "health/state/"):
		answer = append(api.HealthChecks{}, slices.Collect(maps.Values(t.checks))...)
	case isNode:
		list := api.CatalogNodeServiceList{Node: m.nodes[node], Services: []*api.AgentService{}}
		for _, id := range slices.Sorted(maps.Keys(t.entries)) {
			if filter == "" { // a filter asks for the index alone
				list.Services = append(list.Services, t.entries[id].Service)
			}
		}
		answer = list
	default:
		answer = append([]*api.ServiceEntry{}, slices.Collect(maps.Values(t.entries))...)
	}
	return t.index, t.changed, answer
}
