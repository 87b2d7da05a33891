package consul

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// realOverview watches services of a real agent with fewer connections than services.
// Each has the instances a and b.
type realOverview struct {
	t      *testing.T
	agent  *consultest.Agent
	client *testClient
	nodes  int

	mu   sync.Mutex
	sets map[string][]discovery.Instance // the last one of each service
}

func watchRealOverview(t *testing.T, o consultest.Options, connections, services, nodes int) *realOverview {
	t.Helper()
	c := &realOverview{t: t, nodes: nodes, sets: make(map[string][]discovery.Instance)}
	c.agent = consultest.Start(t, o)
	for n := range services {
		c.register(n, "a", api.HealthPassing, nil)
		c.register(n, "b", api.HealthPassing, nil)
	}
	c.client = verify.Result(newClient(consul.Options{
		Addresses: []string{c.agent.URL()}, MaxWatches: connections, Log: zerolog.New(zerolog.NewTestWriter(t)),
	})).Must(t)
	m := discovery.NewManager(discovery.ManagerOptions{Sink: func(set discovery.Set) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.sets[set.Service] = set.Instances
	}})
	for n := range services {
		name := serviceName(n)
		if n == 10 { // to Consul it is the same
			name = strings.ToUpper(name)
		}
		m.Watch(serviceName(n), c.client.Source(ServiceOptions{Service: name, Wait: maxWait, Probation: -1}))
	}
	t.Cleanup(c.client.Close)
	run(t, m)
	for n := range services {
		c.await(n, "a b")
	}
	return c
}

// register registers an instance on the node of its service.
func (c *realOverview) register(n int, id, status string, change func(*api.CatalogRegistration)) {
	c.t.Helper()
	node := n % c.nodes
	name := serviceName(n) + "-" + id
	r := &api.CatalogRegistration{
		Node: fmt.Sprint("node-", node), Address: fmt.Sprint("10.0.0.", node+1), SkipNodeUpdate: n >= c.nodes,
		Service: &api.AgentService{ID: name, Service: serviceName(n), Address: "127.0.0.1", Port: 1000 + n},
		Checks: api.HealthChecks{{Node: fmt.Sprint("node-", node), CheckID: name,
			ServiceID: name, Status: status}},
	}
	if change != nil {
		change(r)
	}
	c.write(func() error {
		_, err := c.agent.Client().Catalog().Register(r, nil)
		return err
	})
}

func (c *realOverview) deregister(n int, id string) {
	c.t.Helper()
	c.write(func() error {
		_, err := c.agent.Client().Catalog().Deregister(&api.CatalogDeregistration{
			Node: fmt.Sprint("node-", n%c.nodes), ServiceID: serviceName(n) + "-" + id}, nil)
		return err
	})
}

// write changes the catalog. The agent counts the test's connections and those of the
// watches against one limit, so it may refuse the test's: write tries until it succeeds.
func (c *realOverview) write(change func() error) {
	c.t.Helper()
	consultest.Await(c.t, "the agent changes its catalog", func() bool {
		err := change()
		if err != nil {
			c.t.Log(err)
		}
		return err == nil
	})
}

// await waits for the set of a service, in the notation of formatSet without the name.
func (c *realOverview) await(n int, want string) {
	c.t.Helper()
	c.awaitSet(n, want, func(set []discovery.Instance) bool {
		return strings.ReplaceAll(formatSet(set), serviceName(n)+"-", "") == want
	})
}

// awaitAt waits until an instance has an address.
func (c *realOverview) awaitAt(n int, id, address string) {
	c.t.Helper()
	c.awaitSet(n, id+" at "+address, func(set []discovery.Instance) bool {
		return slices.ContainsFunc(set, func(i discovery.Instance) bool {
			return i.ID == serviceName(n)+"-"+id && i.HostPort() == address
		})
	})
}

func (c *realOverview) awaitSet(n int, want string, ok func([]discovery.Instance) bool) {
	c.t.Helper()
	consultest.Await(c.t, serviceName(n)+": "+want, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		set, known := c.sets[serviceName(n)]
		return known && ok(set)
	})
}

// goesThroughLife makes every kind of change.
func (c *realOverview) goesThroughLife() {
	c.t.Helper()
	c.register(0, "c", api.HealthPassing, nil)
	c.await(0, "a b c")
	c.deregister(0, "a")
	c.await(0, "b c")

	c.register(1, "c", api.HealthCritical, nil)
	c.await(1, "a b c:critical")
	c.register(1, "c", api.HealthPassing, nil)
	c.await(1, "a b c")
	c.register(1, "a", api.HealthWarning, nil)
	c.await(1, "a:warning b c")
	c.register(1, "a", api.HealthPassing, nil)
	c.await(1, "a b c")

	c.register(2, "bare", "", func(r *api.CatalogRegistration) { r.Checks = nil })
	c.await(2, "a b bare")
	c.register(2, "bare", "", func(r *api.CatalogRegistration) {
		r.Checks, r.Service.Port = nil, 0 // not an instance any more
	})
	c.await(2, "a b")

	// In one transaction, a new instance and a moved one: checks show the first one only.
	_, _, _, err := c.agent.Client().Txn().Txn(api.TxnOps{
		{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: fmt.Sprint("node-", 6%c.nodes), Service: api.AgentService{
			ID: serviceName(6) + "-c", Service: serviceName(6), Address: "127.0.0.1", Port: 1006}}},
		{Check: &api.CheckTxnOp{Verb: api.CheckSet, Check: api.HealthCheck{
			Node: fmt.Sprint("node-", 6%c.nodes), CheckID: "c6", ServiceID: serviceName(6) + "-c", Status: api.HealthPassing}}},
		{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: fmt.Sprint("node-", 7%c.nodes), Service: api.AgentService{
			ID: serviceName(7) + "-a", Service: serviceName(7), Address: "127.0.0.1", Port: 2007}}},
	}, nil)
	verify.NoError(c.t, err)
	c.await(6, "a b c")
	c.awaitAt(7, "a", "127.0.0.1:2007")

	c.register(10, "c", api.HealthPassing, nil)
	c.await(10, "a b c")

	// Instances without an address have that of their node.
	c.register(8, "n", api.HealthPassing, func(r *api.CatalogRegistration) { r.Service.Address = "" })
	c.await(8, "a b n")
	_, err = c.agent.Client().Catalog().Register(&api.CatalogRegistration{Node: fmt.Sprint("node-", 8%c.nodes), Address: "10.9.9.9"}, nil)
	verify.NoError(c.t, err)
	c.awaitAt(8, "n", "10.9.9.9:1008")

	// Each service with its number on node 3 of all.
	node := 3 % c.nodes
	_, err = c.agent.Client().Catalog().Register(&api.CatalogRegistration{
		Node: fmt.Sprint("node-", node), Address: fmt.Sprint("10.0.0.", node+1), SkipNodeUpdate: true,
		Check: &api.AgentCheck{Node: fmt.Sprint("node-", node), CheckID: "serfHealth", Name: "Serf Health Status", Status: api.HealthCritical},
	}, nil)
	verify.NoError(c.t, err)
	c.await(3, "a:critical b:critical")
	c.await(3+c.nodes, "a:critical b:critical")
}

func TestRealOverview(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                         string
		connections, services, nodes int
	}{
		{"few nodes", 16, 20, 2},
		{"a slot for each node", 30, 40, 6},
		{"more nodes than slots", 16, 20, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := watchRealOverview(t, consultest.Options{}, tt.connections, tt.services, tt.nodes)
			c.goesThroughLife()
			s := c.client.Stats()
			verify.That(t, s.Peak <= tt.connections && s.Refused <= 0, "%+v: want at most %d connections", s, tt.connections)
		})
	}
}

// An agent that accepts fewer connections than the client opens answers 429.
func TestRealAgentWithFewConnections(t *testing.T) {
	t.Parallel()
	c := watchRealOverview(t, consultest.Options{Config: map[string]any{
		"limits": map[string]any{"http_max_conns_per_client": 14},
	}}, 128, 60, 2)
	c.register(7, "c", api.HealthPassing, nil)
	c.await(7, "a b c")
	c.deregister(7, "c")
	c.await(7, "a b")
	s := c.client.Stats()
	verify.That(t, s.Refused != 0 && s.Shared, "%+v: want some refused", s)
	// One that Consul refuses counts until its refusal has been read.
	consultest.Await(t, "there are fewer than 14 connections", func() bool { return c.client.Stats().Connections < 14 })
}
