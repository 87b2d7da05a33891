package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consultest"
)

// instances returns the instances of a service in the catalog.
func instances(t *testing.T, agent *consultest.Agent, service string) []*api.ServiceEntry {
	t.Helper()
	entries, _, err := agent.Client().Health().Service(service, "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// A gateway is in Consul while it serves, follows the configuration, and is
// taken away at the beginning of its stop, while it still accepts.
func TestRegistersItselfInConsul(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{})
	text := fmt.Sprintf("shutdown: { delay: 10m }\nconsul: { addresses: [%q], register: { service: NAME, tags: [edge], check: { interval: 1s } } }\n", agent.URL()) +
		static("a", origin(t, "a"))
	r := start(t, strings.ReplaceAll(text, "NAME", "sluice"))
	r.await("it is registered", func() bool { return len(instances(t, agent, "sluice")) == 1 })
	e := instances(t, agent, "sluice")[0]
	if e.Service.Port != port(t, r.Address("web").String()) || e.Service.Address != "127.0.0.1" || e.Checks.AggregatedStatus() != api.HealthPassing ||
		e.Service.Meta["sluice-config"] != r.history.Current().Hash || e.Service.Meta["sluice-version"] != "test" {
		t.Errorf("got %+v %+v", e.Service, e.Checks)
	}
	// The agent, which is on this machine, asks the admin API on loopback.
	r.await("the agent has asked for /readyz", func() bool {
		checks, err := agent.Client().Agent().Checks() // the catalog gets the output later
		c := checks["sluice-http:"+e.Service.ID]
		return err == nil && c != nil && strings.Contains(c.Output, "200 OK")
	})

	r.write(strings.ReplaceAll(text, "NAME", "edge"))
	r.await("it has the other name", func() bool {
		return len(instances(t, agent, "edge")) == 1 && len(instances(t, agent, "sluice")) == 0
	})
	hash := r.history.Current().Hash
	r.write("# The same in other words.\n" + preamble + strings.ReplaceAll(text, "NAME", "edge"))
	r.await("it has the hash of the new text", func() bool {
		e := instances(t, agent, "edge")
		now := r.history.Current().Hash
		return len(e) == 1 && now != hash && e[0].Service.Meta["sluice-config"] == now
	})

	r.stop()
	r.await("it is not listed any more", func() bool { return len(instances(t, agent, "edge")) == 0 })
	if status, body := r.get("/"); status != 200 || body != "a" {
		t.Errorf("while it stops: got %d %q", status, body)
	}
}

// Without Consul everything is as ever, but for the log, and a stop does not
// take longer.
func TestRegistrationNeverAffectsServing(t *testing.T) {
	r := start(t, "consul: { addresses: ['127.0.0.1:1'], register: {} }\n"+static("a", origin(t, "a")))
	r.await("the log says that it is not registered", func() bool { return strings.Contains(r.log.String(), "cannot make sure") })
	if status, body := r.get("/"); status != 200 || body != "a" {
		t.Errorf("got %d %q", status, body)
	}
	begin := time.Now()
	r.stop()
	r.awaitEnd()
	if took := time.Since(begin); took > patience {
		t.Errorf("the stop took %v", took)
	}
}
