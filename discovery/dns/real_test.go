package dns

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

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
	servers := []string{"127.0.0.1:1", server} // nobody listens at the first one
	return follow(t, Options{Name: "_" + service + "._tcp.service.consul", Type: SRV, Servers: servers, Probation: time.Hour})
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

// TestUDP and TestAbsence have what Consul does without TCP, and when it has lost its data.
func TestConsulDNS(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
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

// Tests with a real server mostly wait.
func TestMain(m *testing.M) {
	parallel.SetDefault(8)
	os.Exit(m.Run())
}
