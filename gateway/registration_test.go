package gateway

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/observe/panics"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// instances returns the instances of a service in the catalog.
func instances(t *testing.T, agent *consultest.Agent, service string) []*api.ServiceEntry {
	t.Helper()
	entries, _, err := agent.Client().Health().Service(service, "", false, nil)
	verify.NoError(t, err)
	return entries
}

// The registration exists while the gateway serves, changes with the configuration, and is
// removed at the beginning of a stop, before the listeners close.
func TestRegistersItselfInConsul(t *testing.T) {
	t.Parallel()
	agent, own := shared.Agent(t)
	edge := own + "-edge"
	text := fmt.Sprintf("shutdown: { delay: 10m }\nconsul: { addresses: [%q], register: { service: NAME, tags: [edge], check: { interval: 1s, timeout: 1m } } }\n", agent.URL()) +
		static("a", origin(t, "a"))
	r := start(t, strings.ReplaceAll(text, "NAME", own))
	r.await("the registration", func() bool { return len(instances(t, agent, own)) == 1 })
	e := instances(t, agent, own)[0]
	if e.Service.Port != port(t, r.Address("web").String()) || e.Service.Address != "127.0.0.1" || e.Checks.AggregatedStatus() != api.HealthPassing ||
		e.Service.Meta["sluice-config"] != r.history.Current().Hash || e.Service.Meta["sluice-version"] != "test" {
		t.Errorf("got %+v %+v", e.Service, e.Checks)
	}
	// The agent is on this machine: it checks the admin API on loopback.
	r.await("the agent has checked /readyz", func() bool {
		checks, err := agent.Client().Agent().Checks() // the catalog has the output later
		c := checks["sluice-http:"+e.Service.ID]
		return err == nil && c != nil && strings.Contains(c.Output, "200 OK")
	})

	r.write(strings.ReplaceAll(text, "NAME", edge) + "health: { max_checks: 7 }\n")
	r.await("the registration has the new name and hash", func() bool {
		e := instances(t, agent, edge)
		return len(e) == 1 && e[0].Service.Meta["sluice-config"] == r.history.Current().Hash && len(instances(t, agent, own)) == 0
	})

	r.stop()
	r.await("the registration is removed", func() bool { return len(instances(t, agent, edge)) == 0 })
	r.gets("/", "a")
}

// If the watches use all connections to the agent, the registration does not wait for an
// answer to one of them.
func TestRegistersWhileWatchesUseAllConnections(t *testing.T) {
	t.Parallel()
	agent, own := shared.Agent(t)
	r := start(t, fmt.Sprintf("consul: { addresses: [%q], max_watches: 1, wait: 10m, orders: off, register: { service: %s } }\n"+
		"services: { consul: { consul: {} } }\nroutes: [{ service: consul }]\n", agent.URL(), own))
	r.await("the registration", func() bool { return len(instances(t, agent, own)) == 1 })
	r.stop()
	r.await("the registration is removed", func() bool { return len(instances(t, agent, own)) == 0 })
}

// A registration that the new configuration has under another name goes with the old process. One
// that it lacks does, too: see package registration.
func TestNewProcessRemovesTheRegistration(t *testing.T) {
	t.Parallel()
	agent, own := shared.Agent(t)
	text := func(name string) string {
		return fmt.Sprintf("shutdown: { idle: 0s }\nconsul: { addresses: [%q], register: { service: %s, check: { interval: 1s } } }\n",
			agent.URL(), name) + static("a", origin(t, "a"))
	}
	registered := func(name string, n int) func() bool {
		return func() bool { return len(instances(t, agent, name)) == n }
	}
	old := start(t, text(own))
	old.await("the registration", registered(own, 1))
	next := old.upgrade(text(own+"-edge"), nil)
	next.await("the registration of the old process is removed", registered(own, 0))
	next.await("the other registration", registered(own+"-edge", 1))
	next.stop()
	next.await("nothing is registered", registered(own+"-edge", 0))
}

// A real Consul with the default policy deny, and sluice with a token of the documented policy.
// Without the policy for the registration sluice serves, and names the permission; with it, it
// registers and lists the fleet.
func TestDocumentedPoliciesAreSufficient(t *testing.T) {
	t.Parallel()
	agent, own := sharedWithACLs.Agent(t)
	watching := verify.Result(consultest.DocumentedPolicy("../docs/consul.md", "## ACLs")).Must(t)
	registering := verify.Result(consultest.DocumentedPolicy("../docs/consul.md", "### What a token must allow")).Must(t)
	policy, token, err := agent.NewToken(own, watching)
	verify.NoError(t, err)
	file := filepath.Join(t.TempDir(), "token")
	verify.NoError(t, os.WriteFile(file, []byte(token.SecretID+"\n"), 0o600))
	register := func(service string) {
		t.Helper()
		err := agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: service + "-1", Name: service, Address: "127.0.0.1", Port: port(t, origin(t, service)),
			Check: &api.AgentServiceCheck{TTL: "1h", Status: api.HealthPassing},
		})
		verify.NoError(t, err)
	}
	register("star")
	register("moon")
	r := startWithin(t, fmt.Sprintf(`
consul: { addresses: [%q], token_file: %q, register: {} }
services: { star: { consul: {} }, moon: { consul: {} } }
routes: [{ path: /moon, service: moon }, { service: star }]
`, agent.URL(), file), time.Millisecond) // moon never gets peers
	r.answers("/", "star")
	// Consul hides moon from the token, which must not be taken for an empty service.
	r.refuses("/moon", 503)
	r.awaitLog(`the token lacks service:read for \"moon\"`)
	var v admin.Replicas
	r.await("the missing permission is named", func() bool {
		return r.api("/api/replicas", &v) == 200 && strings.Contains(v.Registration.LastError, `lacks service:write: service "sluice" { policy = "write" }`)
	})
	policy.Rules = watching + registering
	_, _, err = agent.Client().ACL().PolicyUpdate(policy, nil)
	verify.NoError(t, err)
	r.await("the registration and the fleet", func() bool {
		return r.api("/api/replicas", &v) == 200 && v.Registration.State == "registered" &&
			v.Error == "" && v.Converged != nil && *v.Converged && len(v.Replicas) == 1 && v.Replicas[0].Status == "passing"
	})
	r.stop()
	r.await("the registration is removed", func() bool { return len(instances(t, agent, "sluice")) == 0 })
}

// After a panic while it registers itself, sluice does so again.
func TestRegistrationAfterAPanic(t *testing.T) {
	panics.Fatal.Store(false)
	defer panics.Fatal.Store(true)
	agent, own := shared.Agent(t)
	r := newRunning(t, fmt.Sprintf("consul: { addresses: [%q], register: { service: %s } }\n", agent.URL(), own)+static("a", "127.0.0.1:1"))
	var once sync.Once
	r.run(Options{}, func(g *Gateway) {
		ready := g.replica.registrar.Ready
		g.replica.registrar.Ready = func(ctx context.Context) (bool, []string) {
			once.Do(func() { panic("a fault") })
			return ready(ctx)
		}
	})
	r.await("the registration", func() bool { return len(instances(t, agent, own)) == 1 })
	r.end()
}
