package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/verify"
)

// manyServices is a number of services for which one process has a blocking query each, and two
// processes would have more connections than an agent accepts from one address.
const manyServices = 115

// crowd is a real agent with many services. Each has an instance that answers with the name of the
// service.
type crowd struct {
	t        *testing.T
	agent    *consultest.Agent
	services int
	nodes    int // of the services
}

func startCrowd(t *testing.T, services, nodes int) *crowd {
	t.Helper()
	c := &crowd{t: t, agent: consultest.Start(t, consultest.Options{}), services: services, nodes: nodes}
	origin := serveHandler(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Split(r.URL.Path, "/")[1]) })
	for n := range services {
		c.register(n, origin)
	}
	return c
}

// register registers the instance of a service.
func (c *crowd) register(n int, at string) {
	c.t.Helper()
	address := verify.Result(netip.ParseAddrPort(at)).Must(c.t)
	node, name := fmt.Sprint("node-", n%c.nodes), crowdService(n)
	verify.Result(c.agent.Client().Catalog().Register(&consulapi.CatalogRegistration{
		Node: node, Address: "127.0.0.1", SkipNodeUpdate: n >= c.nodes,
		Service: &consulapi.AgentService{ID: name, Service: name, Address: address.Addr().String(), Port: int(address.Port())},
		Checks:  consulapi.HealthChecks{{Node: node, CheckID: name, ServiceID: name, Status: consulapi.HealthPassing}},
	}, nil)).Must(c.t)
}

func crowdService(n int) string { return fmt.Sprintf("s%03d", n) }

// configuration returns a configuration with a route /NAME to each service.
func (c *crowd) configuration() string {
	var services, routes strings.Builder
	for n := range c.services {
		name := crowdService(n)
		fmt.Fprintf(&services, "  %s: { consul: {} }\n", name)
		fmt.Fprintf(&routes, "  - { path: /%s, service: %s }\n", name, name)
	}
	return fmt.Sprintf("consul: { addresses: [%q] }\nservices:\n%sroutes:\n%s", c.agent.URL(), &services, &routes)
}

// ask returns a numbered request. Consecutive numbers are requests to different services.
func (c *crowd) ask(s *serving) func(number int) (*http.Request, string) {
	return func(number int) (*http.Request, string) {
		name := crowdService(number % c.services)
		r, _ := http.NewRequest(http.MethodGet, "http://"+s.address+"/"+name, nil)
		return r, name
	}
}

// ready reports whether the status of /readyz is 200.
func (s *serving) ready() bool {
	status, _ := tryGet("http://" + s.admin + "/readyz")
	return status == http.StatusOK
}

// neighbour is another client on this machine, which sends each query to the agent on a new
// connection. stop returns the number of refused connections, and how the last one was refused.
func (c *crowd) neighbour() (stop func() (refused int, last string)) {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	refused, last, done := 0, "", make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		pace := time.Tick(5 * time.Millisecond)
		for {
			select {
			case <-done:
				return
			case <-pace:
			}
			// An agent with too many connections responds before the request, which is
			// also an error.
			r, err := client.Get(c.agent.URL() + "/v1/status/leader")
			if err != nil {
				refused, last = refused+1, err.Error()
				continue
			}
			r.Body.Close()
			if r.StatusCode != http.StatusOK {
				refused, last = refused+1, r.Status
			}
		}
	})
	end := sync.OnceFunc(func() {
		close(done)
		asking.Wait()
	})
	c.t.Cleanup(end)
	return func() (int, string) { end(); return refused, last }
}

// Upgrades under load with so many services that the agent would not accept the connections of two
// processes. No request fails, and the agent refuses no connection, neither of sluice nor of
// another client.
//
// It runs beside no other test: sluice waits half a second at most for connections that the agent
// is to close.
func TestReplaceWithManyServices(t *testing.T) {
	long.Test(t)
	for name, test := range map[string]struct {
		services, nodes, upgrades int
		strategy                  string // labels of a metric
	}{
		// Each service has a query that ends with its connection.
		"a query for each": {manyServices, 1, 5, fmt.Sprintf(`{by="query"} %d`, manyServices)},
		// Each node has a query that the agent continues for a minute.
		"an overview": {160, 60, 2, `{by="overview"} 160`},
	} {
		t.Run(name, func(t *testing.T) {
			c := startCrowd(t, test.services, test.nodes)
			s := startServing(t, c.configuration())
			awaitThat(t, "readiness", s.ready)
			l := startLoad(t, 6, c.ask(s))
			stop := c.neighbour()
			for range test.upgrades {
				awaitThat(t, "a watch of each service", func() bool { return strings.Contains(s.metrics(), "sluice_consul_watches"+test.strategy) })
				l.more(300)
				s.replace()
			}
			l.more(300)
			refused, last := stop()
			l.stop()
			t.Logf("%d requests", l.served.Load())
			verify.That(t, refused <= 0, "the agent refused the neighbour %d times: %s", refused, last)
			n := strings.Count(s.log(), "429 Too Many Requests")
			verify.That(t, n <= 0, "the agent refused sluice: %d lines of the log", n)
			c.change(s)
			s.end()
		})
	}
}

func (s *serving) metrics() string {
	_, body := tryGet("http://" + s.admin + "/metrics")
	return body
}

// change moves an instance, and waits until sluice uses the new address.
func (c *crowd) change(s *serving) {
	c.t.Helper()
	c.register(7, serveHandler(c.t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "moved") }))
	awaitThat(c.t, "the new address is used", func() bool {
		_, body := tryGet("http://" + s.address + "/" + crowdService(7))
		return body == "moved"
	})
}
