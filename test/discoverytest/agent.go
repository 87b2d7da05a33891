package discoverytest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"sync"

	"github.com/hashicorp/consul/api"
)

// Agent is a stand-in for a Consul agent that is its own server: what programs register there,
// with HTTP, TCP and TTL checks that it runs, is what [Consul] answers about health and the
// catalog, beside a [KV] store. It is an http.Handler, and safe for concurrent use.
//
// Unlike Consul, it has neither ACLs, nor sessions, nor a mesh, and of filters it knows those
// that sluice sends.
type Agent struct {
	catalog  *Consul
	keys     *KV
	node     *api.Node
	mux      *http.ServeMux
	checking sync.WaitGroup // the goroutines of checks

	mu       sync.Mutex // guards the fields below
	services map[string]*agentService
}

// agentService is a registration, with its checks by their ids.
type agentService struct {
	definition api.AgentServiceRegistration
	checks     map[string]*agentCheck
}

// errUnknown is in errors about a service or a check that the agent does not have.
var errUnknown = errors.New("unknown")

// NewAgent returns an agent of a node at 127.0.0.1 in the data centre dc1. Close ends its checks.
func NewAgent(node string) *Agent {
	a := &Agent{
		catalog:  New(),
		keys:     NewKV(),
		node:     &api.Node{ID: "00000000-0000-0000-0000-000000000001", Node: node, Address: "127.0.0.1", Datacenter: "dc1"},
		mux:      http.NewServeMux(),
		services: make(map[string]*agentService),
	}
	a.catalog.SetDistances(Distance{Datacenter: a.node.Datacenter, Seconds: []float64{0}})
	a.catalog.Set("consul", a.entry(api.AgentServiceRegistration{ID: "consul", Name: "consul", Port: 8300}))
	a.handle("PUT /v1/agent/service/register", a.register)
	a.handle("PUT /v1/agent/service/deregister/{id...}", func(r *http.Request) (any, error) { return nil, a.deregister(r.PathValue("id")) })
	a.handle("PUT /v1/agent/service/maintenance/{id...}", a.maintain)
	a.handle("PUT /v1/agent/check/update/{id...}", a.update)
	a.handle("PUT /v1/agent/check/deregister/{id...}", a.deregisterCheck)
	a.handle("GET /v1/agent/services", a.listServices)
	a.handle("GET /v1/agent/checks", a.listChecks)
	a.handle("GET /v1/agent/self", a.self)
	a.mux.Handle("/v1/kv/", a.keys)
	a.mux.Handle("/v1/txn", a.keys)
	a.mux.Handle("/", a.catalog)
	return a
}

func (a *Agent) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// Close ends the checks.
func (a *Agent) Close() {
	a.mu.Lock()
	for _, s := range a.services {
		for _, c := range s.checks {
			c.end()
		}
	}
	a.mu.Unlock()
	a.checking.Wait()
}

// handle answers requests of a pattern with what do returns, as JSON; nil: nothing.
func (a *Agent) handle(pattern string, do func(*http.Request) (any, error)) {
	a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		answer, err := do(r)
		switch {
		case errors.Is(err, errUnknown):
			http.Error(w, err.Error(), http.StatusNotFound)
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
		case answer != nil:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(answer) // the client is gone
		}
	})
}

// register registers a service, or replaces the one with the same id: what it had of the same
// checks stays, and so do its checks that the new registration lacks.
func (a *Agent) register(r *http.Request) (any, error) {
	var definition api.AgentServiceRegistration
	if err := json.NewDecoder(r.Body).Decode(&definition); err != nil {
		return nil, fmt.Errorf("request decode failed: %w", err)
	}
	if definition.Name == "" {
		return nil, errors.New("missing service name")
	}
	checks, err := newChecks(&definition)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.services[definition.ID]
	s := &agentService{definition: definition, checks: make(map[string]*agentCheck)}
	if old != nil {
		maps.Copy(s.checks, old.checks)
	}
	for _, c := range checks {
		if was := s.checks[c.CheckID]; was != nil {
			was.end()
			c.Status, c.Output = was.Status, was.Output
		}
		s.checks[c.CheckID] = c
	}
	a.services[definition.ID] = s
	if old != nil && old.definition.Name != definition.Name {
		a.publishLocked(old.definition.Name)
	}
	a.publishLocked(definition.Name)
	for _, c := range checks {
		a.startLocked(c)
	}
	return nil, nil
}

func (a *Agent) deregister(id string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.services[id]
	if s == nil {
		return fmt.Errorf("%w service ID %q. Ensure that the service ID is passed, not the service name", errUnknown, id)
	}
	for _, c := range s.checks {
		c.end()
	}
	delete(a.services, id)
	a.publishLocked(s.definition.Name)
	return nil
}

// maintain adds or removes the check of maintenance, which is critical.
func (a *Agent) maintain(r *http.Request) (any, error) {
	id, query := r.PathValue("id"), r.URL.Query()
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.services[id]
	if s == nil {
		return nil, fmt.Errorf("%w service ID %q", errUnknown, id)
	}
	checkID := api.ServiceMaintPrefix + id
	delete(s.checks, checkID)
	if query.Get("enable") == "true" {
		s.checks[checkID] = &agentCheck{HealthCheck: api.HealthCheck{
			CheckID: checkID, Name: "Service Maintenance Mode", Status: api.HealthCritical,
			Notes: cmp.Or(query.Get("reason"), "Maintenance mode is enabled for this service"), ServiceID: id, ServiceName: s.definition.Name, Type: "maintenance",
		}}
	}
	a.publishLocked(s.definition.Name)
	return nil, nil
}

// update is the report of a TTL check.
func (a *Agent) update(r *http.Request) (any, error) {
	var report struct{ Status, Output string }
	if err := json.NewDecoder(r.Body).Decode(&report); err != nil {
		return nil, fmt.Errorf("request decode failed: %w", err)
	}
	if !slices.Contains([]string{api.HealthPassing, api.HealthWarning, api.HealthCritical}, report.Status) {
		return nil, fmt.Errorf("invalid check status: %q", report.Status)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, c := a.findLocked(r.PathValue("id"))
	if c == nil || c.expiry == nil {
		return nil, fmt.Errorf("%w check ID %q. Ensure that the check ID is passed, not the check name", errUnknown, r.PathValue("id"))
	}
	c.expiry.Reset(c.ttl)
	a.setLocked(c, report.Status, report.Output)
	return nil, nil
}

func (a *Agent) deregisterCheck(r *http.Request) (any, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, c := a.findLocked(r.PathValue("id"))
	if c == nil {
		return nil, fmt.Errorf("%w check ID %q", errUnknown, r.PathValue("id"))
	}
	c.end()
	delete(s.checks, c.CheckID)
	a.publishLocked(s.definition.Name)
	return nil, nil
}

// findLocked returns a check, and its service.
func (a *Agent) findLocked(checkID string) (*agentService, *agentCheck) {
	for _, s := range a.services {
		if c := s.checks[checkID]; c != nil {
			return s, c
		}
	}
	return nil, nil
}

// The filters that sluice sends to an agent.
var (
	serviceMeta    = regexp.MustCompile("^Meta\\[`([^`]*)`\\] == `([^`]*)`$")
	checkOfService = regexp.MustCompile("^ServiceID == `([^`]*)`$")
)

// filterOf returns the parts of the filter of a query, nil without one, and an error if it is
// another one.
func filterOf(r *http.Request, known *regexp.Regexp) (parts []string, err error) {
	filter := r.URL.Query().Get("filter")
	if filter == "" {
		return nil, nil
	}
	if parts = known.FindStringSubmatch(filter); parts == nil {
		return nil, fmt.Errorf("the stand-in for Consul does not know the filter %q", filter)
	}
	return parts, nil
}

func (a *Agent) listServices(r *http.Request) (any, error) {
	filter, err := filterOf(r, serviceMeta)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make(map[string]*api.AgentService)
	for id, s := range a.services {
		if filter == nil || s.definition.Meta[filter[1]] == filter[2] {
			list[id] = a.entry(s.definition).Service
		}
	}
	return list, nil
}

func (a *Agent) listChecks(r *http.Request) (any, error) {
	filter, err := filterOf(r, checkOfService)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make(map[string]api.HealthCheck)
	for id, s := range a.services {
		if filter != nil && filter[1] != id {
			continue
		}
		for checkID, c := range s.checks {
			list[checkID] = c.HealthCheck
		}
	}
	return list, nil
}

func (a *Agent) self(*http.Request) (any, error) {
	return map[string]any{
		"Config": map[string]any{"Datacenter": a.node.Datacenter, "NodeName": a.node.Node, "NodeID": a.node.ID, "Server": true, "Version": "stand-in"},
		"Member": map[string]any{"Name": a.node.Node, "Addr": a.node.Address, "Status": 1},
	}, nil
}

// publishLocked tells the catalog the instances of a service.
func (a *Agent) publishLocked(name string) {
	var entries []*api.ServiceEntry
	for _, id := range slices.Sorted(maps.Keys(a.services)) {
		s := a.services[id]
		if s.definition.Name != name {
			continue
		}
		e := a.entry(s.definition)
		for _, checkID := range slices.Sorted(maps.Keys(s.checks)) {
			check := s.checks[checkID].HealthCheck
			check.Node = a.node.Node
			e.Checks = append(e.Checks, &check)
		}
		entries = append(entries, e)
	}
	a.catalog.Set(name, entries...)
}

// entry returns an instance with the check of its node.
func (a *Agent) entry(d api.AgentServiceRegistration) *api.ServiceEntry {
	service := &api.AgentService{
		Kind: d.Kind, ID: d.ID, Service: d.Name, Tags: d.Tags, Meta: d.Meta, Port: d.Port, Address: d.Address, Datacenter: a.node.Datacenter,
		TaggedAddresses: d.TaggedAddresses, EnableTagOverride: d.EnableTagOverride, Weights: api.AgentWeights{Passing: 1, Warning: 1},
	}
	if d.Weights != nil {
		service.Weights = *d.Weights
	}
	return &api.ServiceEntry{Node: a.node, Service: service, Checks: api.HealthChecks{{
		Node: a.node.Node, CheckID: "serfHealth", Name: "Serf Health Status", Status: api.HealthPassing, Output: "Agent alive and reachable",
	}}}
}

// agentState is what a server has on disk.
type agentState struct {
	Index    uint64
	Services []api.AgentServiceRegistration
	Checks   map[string]api.HealthCheck // by the id of the check
	Keys     map[string]api.KVPair
}

// Save writes the state as JSON, for Load.
func (a *Agent) Save(w io.Writer) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := agentState{Index: a.catalog.lastIndex(), Checks: make(map[string]api.HealthCheck), Keys: a.keys.Backup()}
	for _, id := range slices.Sorted(maps.Keys(a.services)) {
		s.Services = append(s.Services, a.services[id].definition)
		for checkID, c := range a.services[id].checks {
			s.Checks[checkID] = c.HealthCheck
		}
	}
	return json.NewEncoder(w).Encode(s)
}

// Load restores a saved state in a new agent. Checks go on with their last status.
func (a *Agent) Load(r io.Reader) error {
	var s agentState
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return err
	}
	a.keys.Restore(s.Keys)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, definition := range s.Services {
		checks, err := newChecks(&definition)
		if err != nil {
			return err
		}
		service := &agentService{definition: definition, checks: make(map[string]*agentCheck)}
		a.services[definition.ID] = service
		for _, c := range checks {
			if was, ok := s.Checks[c.CheckID]; ok {
				c.Status, c.Output = was.Status, was.Output
			}
			service.checks[c.CheckID] = c
			a.startLocked(c)
		}
		a.publishLocked(definition.Name)
	}
	a.catalog.SetIndex(s.Index + 1)
	return nil
}
