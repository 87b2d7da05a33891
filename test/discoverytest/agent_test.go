package discoverytest_test

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// The stand-in for an agent does what Consul does: both pass the same cases, by Consul's client.
func TestAgentDoesWhatConsulDoes(t *testing.T) {
	for _, test := range []struct {
		name  string
		start func(*testing.T) string // the URL
	}{
		{"stand-in", func(t *testing.T) string {
			a := discoverytest.NewAgent("one")
			t.Cleanup(a.Close)
			server := httptest.NewServer(a)
			t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
			return server.URL
		}},
		{"Consul", func(t *testing.T) string { return consultest.Start(t, consultest.Options{}).URL() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := agentCase{t, verify.Result(api.NewClient(&api.Config{Address: test.start(t)})).Must(t)}
			c.leader()
			c.httpCheck()
			c.tcpCheck()
			c.ttlCheck()
			c.replacement()
			c.maintenance()
			c.blockingQuery()
			c.keys()
			c.unknown()
		})
	}
}

type agentCase struct {
	t      *testing.T
	client *api.Client
}

func (c agentCase) register(r api.AgentServiceRegistration) {
	c.t.Helper()
	verify.NoError(c.t, c.client.Agent().ServiceRegister(&r))
}

// instances returns the instances of a service, by the id.
func (c agentCase) instances(service, filter string) map[string]*api.ServiceEntry {
	c.t.Helper()
	list, _, err := c.client.Health().Service(service, "", false, &api.QueryOptions{Filter: filter})
	verify.NoError(c.t, err)
	all := make(map[string]*api.ServiceEntry)
	for _, e := range list {
		all[e.Service.ID] = e
	}
	return all
}

// await waits until the only instance of a service has a status, and what a check of it says.
func (c agentCase) await(service, status, output string) {
	c.t.Helper()
	consultest.Await(c.t, service+" to be "+status, func() bool {
		for _, e := range c.instances(service, "") {
			for _, check := range e.Checks {
				if e.Checks.AggregatedStatus() == status && strings.Contains(check.Output, output) {
					return true
				}
			}
		}
		return false
	})
}

func (c agentCase) leader() {
	leader, err := c.client.Status().Leader()
	verify.NoError(c.t, err)
	verify.That(c.t, leader != "", "there is no leader")
	verify.Equal(c.t, len(c.instances("consul", "")), 1, "servers")
}

func (c agentCase) httpCheck() {
	var status atomic.Int32
	status.Store(http.StatusOK)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(int(status.Load()))
		w.Write([]byte("fine"))
	}))
	defer app.Close()
	c.register(api.AgentServiceRegistration{
		Name: "web", Address: "127.0.0.1", Port: 80, Tags: []string{"a"}, Weights: &api.AgentWeights{Passing: 3, Warning: 2},
		Check: &api.AgentServiceCheck{HTTP: app.URL + "/health", Interval: "20ms"},
	})
	c.await("web", api.HealthPassing, "HTTP GET "+app.URL+"/health: 200 OK Output: fine")
	e := c.instances("web", "")["web"]
	verify.Equal(c.t, e.Service.Weights, api.AgentWeights{Passing: 3, Warning: 2}, "weights")
	verify.Slices(c.t, e.Service.Tags, []string{"a"}, "tags")
	verify.Equal(c.t, e.Service.Port, 80, "port")
	status.Store(http.StatusTooManyRequests)
	c.await("web", api.HealthWarning, "429")
	status.Store(http.StatusServiceUnavailable)
	c.await("web", api.HealthCritical, "503")
	check := c.instances("web", "")["web"].Checks[1]
	verify.Equal(c.t, [...]string{check.CheckID, check.ServiceName, check.Type}, [...]string{"service:web", "web", "http"}, "check")
	status.Store(http.StatusOK)
	c.await("web", api.HealthPassing, "200")
	app.Close()
	c.await("web", api.HealthCritical, `Get "`+app.URL+`/health": `) // refused, or cut by Close
	names, _, err := c.client.Catalog().Services(nil)
	verify.NoError(c.t, err)
	verify.Slices(c.t, names["web"], []string{"a"}, "tags in the catalog")
	verify.NoError(c.t, c.client.Agent().ServiceDeregister("web"))
	verify.Equal(c.t, len(c.instances("web", "")), 0, "instances after the end")
}

func (c agentCase) tcpCheck() {
	listener := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(c.t)
	address := listener.Addr().String()
	c.register(api.AgentServiceRegistration{Name: "raw", Checks: api.AgentServiceChecks{
		{TCP: address, Interval: "20ms"}, {Name: "second", TCP: address, Interval: "20ms"},
	}})
	c.await("raw", api.HealthPassing, "TCP connect "+address+": Success")
	checks := c.instances("raw", "")["raw"].Checks
	verify.Equal(c.t, [...]string{checks[1].CheckID, checks[2].CheckID, checks[2].Name}, [...]string{"service:raw:1", "service:raw:2", "second"}, "checks")
	listener.Close()
	c.await("raw", api.HealthCritical, "dial tcp "+address) // refused, or cut by Close
}

func (c agentCase) ttlCheck() {
	c.register(api.AgentServiceRegistration{Name: "job", Check: &api.AgentServiceCheck{TTL: "1s"}})
	c.await("job", api.HealthCritical, "")
	verify.NoError(c.t, c.client.Agent().UpdateTTL("service:job", "worked", api.HealthPassing))
	c.await("job", api.HealthPassing, "worked")
	c.await("job", api.HealthCritical, "TTL expired")
}

// replacement: another registration of the same id keeps the status of a check, and checks that it
// lacks.
func (c agentCase) replacement() {
	r := api.AgentServiceRegistration{ID: "r-1", Name: "replaced", Meta: map[string]string{"owner": "one"}, Check: &api.AgentServiceCheck{CheckID: "first", TTL: "1h"}}
	c.register(r)
	verify.NoError(c.t, c.client.Agent().UpdateTTL("first", "well", api.HealthPassing))
	c.await("replaced", api.HealthPassing, "well")
	r.Check.Status, r.Meta["owner"] = api.HealthCritical, "two"
	c.register(r)
	c.await("replaced", api.HealthPassing, "well")
	r.Check = &api.AgentServiceCheck{CheckID: "second", TTL: "1h", Status: api.HealthPassing}
	c.register(r)
	list, err := c.client.Agent().ChecksWithFilter("ServiceID == `r-1`")
	verify.NoError(c.t, err)
	verify.That(c.t, len(list) == 2 && list["first"] != nil && list["second"].Status == api.HealthPassing, "checks: %v", list)
	verify.NoError(c.t, c.client.Agent().CheckDeregister("first"))
	list, err = c.client.Agent().ChecksWithFilter("ServiceID == `r-1`")
	verify.That(c.t, err == nil && len(list) == 1, "checks: %v, %v", list, err)
	c.register(api.AgentServiceRegistration{ID: "r-2", Name: "replaced", Meta: map[string]string{"owner": "three"}})
	services, err := c.client.Agent().ServicesWithFilter("Meta[`owner`] == `two`")
	verify.NoError(c.t, err)
	verify.That(c.t, len(services) == 1 && services["r-1"] != nil, "services of the agent: %v", services)
	consultest.Await(c.t, "the catalog to have both", func() bool { return len(c.instances("replaced", "")) == 2 })
	verify.That(c.t, c.instances("replaced", "Service.Meta[`owner`] == `three`")["r-2"] != nil, "the filter has not found r-2")
	verify.That(c.t, c.instances("replaced", "Service.Meta[`owner`] == `three`")["r-1"] == nil, "the filter has found r-1")
}

func (c agentCase) maintenance() {
	c.register(api.AgentServiceRegistration{Name: "down"})
	c.await("down", api.HealthPassing, "")
	verify.NoError(c.t, c.client.Agent().EnableServiceMaintenance("down", "for a while"))
	c.await("down", api.HealthMaint, "")
	verify.NoError(c.t, c.client.Agent().DisableServiceMaintenance("down"))
	c.await("down", api.HealthPassing, "")
}

func (c agentCase) blockingQuery() {
	c.register(api.AgentServiceRegistration{ID: "b-1", Name: "blocked"})
	consultest.Await(c.t, "b-1", func() bool { return len(c.instances("blocked", "")) == 1 })
	_, meta, err := c.client.Health().Service("blocked", "", false, nil)
	verify.NoError(c.t, err)
	verify.That(c.t, meta.LastIndex > 0 && meta.KnownLeader, "meta: %+v", meta)
	answered := make(chan int, 1)
	go func() {
		list, later, err := c.client.Health().Service("blocked", "", false, &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: consultest.Patience})
		if err != nil || later.LastIndex <= meta.LastIndex {
			list = nil
		}
		answered <- len(list)
	}()
	c.register(api.AgentServiceRegistration{ID: "b-2", Name: "blocked"})
	verify.Equal(c.t, <-answered, 2, "instances in the answer of the query that blocked")
}

func (c agentCase) keys() {
	kv := c.client.KV()
	_, err := kv.Put(&api.KVPair{Key: "dir/a", Value: []byte("1")}, nil)
	verify.NoError(c.t, err)
	_, err = kv.Put(&api.KVPair{Key: "dir/a", Value: []byte("2")}, nil)
	verify.NoError(c.t, err)
	pair, meta, err := kv.Get("dir/a", nil)
	verify.NoError(c.t, err)
	verify.That(c.t, string(pair.Value) == "2" && meta.LastIndex == pair.ModifyIndex, "pair: %+v, index %d", pair, meta.LastIndex)
	ok, _, err := kv.CAS(&api.KVPair{Key: "dir/a", Value: []byte("3"), ModifyIndex: pair.ModifyIndex - 1}, nil)
	verify.That(c.t, err == nil && !ok, "an old index was accepted: %v", err)
	ok, _, err = kv.CAS(&api.KVPair{Key: "dir/b", Value: []byte("3")}, nil)
	verify.That(c.t, err == nil && ok, "a new key was refused: %v", err)
	list, _, err := kv.List("dir/", nil)
	verify.That(c.t, err == nil && len(list) == 2, "keys: %v, %v", list, err)
	_, err = kv.Delete("dir/a", nil)
	verify.NoError(c.t, err)
	pair, _, err = kv.Get("dir/a", nil)
	verify.That(c.t, err == nil && pair == nil, "after the deletion: %v, %v", pair, err)
}

func (c agentCase) unknown() {
	err := c.client.Agent().ServiceDeregister("nobody")
	verify.That(c.t, err != nil && strings.Contains(err.Error(), "404"), "deregister what is not there: %v", err)
	err = c.client.Agent().UpdateTTL("nobody", "", api.HealthPassing)
	verify.That(c.t, err != nil && strings.Contains(err.Error(), "404"), "report for what is not there: %v", err)
	err = c.client.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "bad", Check: &api.AgentServiceCheck{HTTP: "http://127.0.0.1:1/"}})
	verify.That(c.t, err != nil && strings.Contains(err.Error(), "Interval"), "a check without an interval: %v", err)
	err = c.client.Agent().ServiceRegister(&api.AgentServiceRegistration{})
	verify.That(c.t, err != nil && strings.Contains(err.Error(), "400"), "a service without a name: %v", err)
}

// What a stopped agent had is there when it starts again, with a higher index.
func TestAgentIsSavedAndLoaded(t *testing.T) {
	start := func(saved string) (a *discoverytest.Agent, c agentCase) {
		a = discoverytest.NewAgent("one")
		t.Cleanup(a.Close)
		if saved != "" {
			verify.NoError(t, a.Load(strings.NewReader(saved)))
		}
		server := httptest.NewServer(a)
		t.Cleanup(server.Close)
		return a, agentCase{t, verify.Result(api.NewClient(&api.Config{Address: server.URL})).Must(t)}
	}
	before, c := start("")
	c.register(api.AgentServiceRegistration{Name: "job", Check: &api.AgentServiceCheck{TTL: "1h"}})
	verify.NoError(t, c.client.Agent().UpdateTTL("service:job", "worked", api.HealthPassing))
	_, err := c.client.KV().Put(&api.KVPair{Key: "a", Value: []byte("1")}, nil)
	verify.NoError(t, err)
	_, meta, err := c.client.Health().Service("job", "", true, nil)
	verify.NoError(t, err)
	var saved bytes.Buffer
	verify.NoError(t, before.Save(&saved))

	_, c = start(saved.String())
	list, later, err := c.client.Health().Service("job", "", true, nil)
	verify.NoError(t, err)
	verify.That(t, len(list) == 1 && later.LastIndex > meta.LastIndex, "%d instances, index %d after %d", len(list), later.LastIndex, meta.LastIndex)
	pair, _, err := c.client.KV().Get("a", nil)
	verify.That(t, err == nil && pair != nil && string(pair.Value) == "1", "the key: %v, %v", pair, err)
	verify.NoError(t, c.client.Agent().UpdateTTL("service:job", "again", api.HealthWarning))
	list, _, err = c.client.Health().Service("job", "", false, &api.QueryOptions{WaitIndex: later.LastIndex, WaitTime: time.Minute})
	verify.That(t, err == nil && len(list) == 1 && list[0].Checks.AggregatedStatus() == api.HealthWarning, "after another report: %v", err)
}
