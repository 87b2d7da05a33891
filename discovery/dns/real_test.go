package dns

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/discovery"
	"sluice/discovery/locality"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/parallel"
	"sluice/test/verify"
)

// follow watches the DNS server of a real Consul, with shorter times.
func follow(t *testing.T, o Options) *discoverytest.Watched {
	s := NewSource("star", o, locality.ByOperator).(*source)
	s.timing = timing{minInterval: 100 * time.Millisecond, confirmEvery: 100 * time.Millisecond, serverTimeout: time.Second}
	return discoverytest.Watch(t, s, zerolog.Nop())
}

// followService follows the SRV records of a service.
func followService(t *testing.T, service, server string) *discoverytest.Watched {
	return follow(t, Options{Name: "_" + service + "._tcp.service.consul", Type: SRV, Servers: []string{server}, Probation: time.Hour})
}

// register registers the instance of a service that has a port.
func register(t *testing.T, agent *consultest.Agent, service string, port int, change ...func(*api.AgentServiceRegistration)) {
	t.Helper()
	id := idOf(service, port)
	r := &api.AgentServiceRegistration{
		Name: service, ID: id, Address: "127.0.0.1", Port: port,
		Check: &api.AgentServiceCheck{CheckID: id, TTL: "1h", Status: api.HealthPassing},
	}
	for _, c := range change {
		c(r)
	}
	verify.NoError(t, agent.Client().Agent().ServiceRegister(r))
}

func idOf(service string, port int) string { return fmt.Sprintf("%s-%d", service, port) }

// weights returns a change of an instance.
func weights(passing, warning int) func(*api.AgentServiceRegistration) {
	return func(r *api.AgentServiceRegistration) {
		r.Weights = &api.AgentWeights{Passing: passing, Warning: warning}
	}
}

// instances returns a set of ports, each with what follows it in the set.
func instances(ports ...string) string {
	var words []string
	for _, port := range ports {
		words = append(words, fmt.Sprintf("7f000001.addr.dc1.consul:%s=127.0.0.1:%s", port[:4], port))
	}
	return strings.Join(words, " ")
}

// TestConsulDNS has tests with services of their own in one Consul, and one Consul for the loss of
// its data.
func TestConsulDNS(t *testing.T) {
	t.Parallel()
	agents := consultest.StartAll(t, consultest.Options{}, consultest.Options{})
	agent, other := agents[0], agents[1]
	for name, test := range map[string]func(*testing.T){
		"weights and checks":          func(t *testing.T) { testWeights(t, agent) },
		"the agent has lost its data": func(t *testing.T) { testLostData(t, agent, other) },
		"without TCP":                 func(t *testing.T) { testWithoutTCP(t, agent) },
		"addresses":                   func(t *testing.T) { testAddresses(t, agent) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

func testWeights(t *testing.T, agent *consultest.Agent) {
	register(t, agent, "heavy", 8000)
	register(t, agent, "heavy", 8001, weights(7, 3))
	w := followService(t, "heavy", agent.DNSAddress())
	w.Await(instances("8000", "8001*7"), "")
	local := agent.Client().Agent()
	verify.NoError(t, local.UpdateTTL("heavy-8001", "slow", api.HealthWarning))
	w.Await(instances("8000", "8001*3"), "")
	verify.NoError(t, local.UpdateTTL("heavy-8000", "dead", api.HealthCritical))
	w.Await(instances("8001*3"), "")
	verify.NoError(t, local.UpdateTTL("heavy-8000", "", api.HealthPassing))
	w.Await(instances("8000", "8001*3"), "")
	verify.Equal(t, w.Set()[0].Priority, 1, "priority")
}

// No instance is lost with the data of the agent: here another one answers.
func testLostData(t *testing.T, agent, other *consultest.Agent) {
	relay := consultest.StartRelay(t, agent.DNSAddress())
	register(t, agent, "data", 8000)
	register(t, agent, "data", 8001, weights(3, 1))
	w := followService(t, "data", relay.Address())
	w.Await(instances("8000", "8001*3"), "")
	relay.Cut()
	w.Await(instances("8000", "8001*3"), relay.Address())
	relay.Redirect(other.DNSAddress())
	w.Await(instances("8000?", "8001*3?"), "")
	register(t, other, "data", 8000)
	register(t, other, "data", 8001)
	w.Await(instances("8000", "8001"), "")
}

// Without TCP the instances arrive in datagrams that Consul cuts.
func testWithoutTCP(t *testing.T, agent *consultest.Agent) {
	for n := range 30 {
		register(t, agent, "cut", 8000+n)
	}
	s := NewSource("star", Options{Name: "_cut._tcp.service.consul", Type: SRV, Servers: []string{agent.DNSAddress()}}, locality.ByOperator).(*source)
	s.minInterval = 100 * time.Millisecond
	dial := s.dial
	s.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if network == "tcp" {
			return nil, syscall.ECONNREFUSED
		}
		return dial(ctx, network, address)
	}
	reports := make(chan discovery.Report)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		_ = s.Run(ctx, discovery.WatchState{}, func(r discovery.Report) {
			select {
			case reports <- r:
			case <-ctx.Done():
			}
		})
	})
	defer running.Wait()
	defer cancel()
	counts := make(map[int]int)
	for count := 0; count < 30; {
		r := <-reports
		verify.NoError(t, r.Err)
		verify.Require(t, len(r.Set) >= count, "%d instances after %d", len(r.Set), count)
		count = len(r.Set)
		counts[count]++
	}
	t.Logf("answers by instances known: %v", counts)
}

// The server in front is not there.
func testAddresses(t *testing.T, agent *consultest.Agent) {
	for n := range 3 {
		register(t, agent, "web", 8000+n, func(r *api.AgentServiceRegistration) { r.Address, r.Port = fmt.Sprintf("127.0.0.%d", n+1), 8000 })
	}
	w := follow(t, Options{Name: "web.service.consul", Type: IP, Port: 8000, Servers: []string{"127.0.0.1:1", agent.DNSAddress()}})
	w.Await("127.0.0.1:8000 127.0.0.2:8000 127.0.0.3:8000", "")
}

// Tests with a real server mostly wait.
func TestMain(m *testing.M) {
	parallel.SetDefault(8)
	os.Exit(m.Run())
}
