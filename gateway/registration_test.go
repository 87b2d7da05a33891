package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/consul/registration"
	"sluice/test/configtest"
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
	agent := consultest.Start(t, consultest.Options{})
	text := fmt.Sprintf("shutdown: { delay: 10m }\nconsul: { addresses: [%q], register: { service: NAME, tags: [edge], check: { interval: 1s, timeout: 1m } } }\n", agent.URL()) +
		static("a", origin(t, "a"))
	r := start(t, strings.ReplaceAll(text, "NAME", "sluice"))
	r.await("the registration", func() bool { return len(instances(t, agent, "sluice")) == 1 })
	e := instances(t, agent, "sluice")[0]
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

	r.write(strings.ReplaceAll(text, "NAME", "edge"))
	r.await("the registration has the new name", func() bool {
		return len(instances(t, agent, "edge")) == 1 && len(instances(t, agent, "sluice")) == 0
	})
	hash := r.history.Current().Hash
	r.write(strings.ReplaceAll(text, "NAME", "edge") + "health: { max_checks: 7 }\n")
	r.await("the registration has the new hash", func() bool {
		e := instances(t, agent, "edge")
		now := r.history.Current().Hash
		return len(e) == 1 && now != hash && e[0].Service.Meta["sluice-config"] == now
	})

	r.stop()
	r.await("the registration is removed", func() bool { return len(instances(t, agent, "edge")) == 0 })
	r.gets("/", "a")
}

// With a token that may not register, sluice serves and names the missing permission. With
// the documented policy it registers, and lists the fleet.
func TestRegistrationNeedsAPermission(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	var rules [2]string
	for n, heading := range []string{"## ACLs", "### What a token must allow"} {
		var err error
		if rules[n], err = consultest.DocumentedPolicy("../docs/consul.md", heading); err != nil {
			t.Fatal(err)
		}
	}
	policy, token, err := agent.NewToken("sluice", rules[0])
	verify.NoError(t, err)
	star := &api.AgentServiceRegistration{ID: "star-1", Name: "star", Address: "127.0.0.1", Port: port(t, origin(t, "star"))}
	verify.NoError(t, agent.Client().Agent().ServiceRegister(star))
	r := start(t, fmt.Sprintf("consul: { addresses: [%q], token: %q, register: {} }\nservices: { star: { consul: {} } }\nroutes: [{ service: star }]\n", agent.URL(), token.SecretID))
	var v admin.Replicas
	r.await("the log names the permission", func() bool {
		return r.api("/api/replicas", &v) == 200 && v.Registration.State == "failing" &&
			strings.Contains(v.Registration.LastError, `lacks service:write: service "sluice" { policy = "write" }`)
	})
	r.gets("/", "star")
	policy.Rules = rules[0] + rules[1]
	if _, _, err := agent.Client().ACL().PolicyUpdate(policy, nil); err != nil {
		t.Fatal(err)
	}
	r.await("the registration and the fleet", func() bool {
		return r.api("/api/replicas", &v) == 200 && v.Registration.State == "registered" &&
			v.Error == "" && v.Converged != nil && *v.Converged && len(v.Replicas) == 1 && v.Replicas[0].Status == "passing"
	})
	r.stop()
	r.await("the registration is removed", func() bool { return len(instances(t, agent, "sluice")) == 0 })
}

// Without Consul, a registration neither affects requests nor delays a stop.
func TestRegistrationDoesNotAffectServing(t *testing.T) {
	t.Parallel()
	r := startWithin(t, "consul: { addresses: ['127.0.0.1:1'], register: {} }\n"+static("a", origin(t, "a")), 100*time.Millisecond)
	r.awaitLog(`"service":"sluice","id":`)
	r.gets("/", "a")
	r.end()
}

// Two replicas list each other, and agree after each change.
func TestReplicasConverge(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	register := func(id string, port int) {
		t.Helper()
		err := agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "star", ID: id, Address: "127.0.0.1", Port: port})
		verify.NoError(t, err)
	}
	register("star-1", 9001)
	text := fmt.Sprintf("consul: { addresses: [%q], register: {} }\nservices: { star: { consul: {} } }\nroutes: [{ service: star }]\n", agent.URL())
	a, b := start(t, text), start(t, text)
	view := func() (v admin.Replicas) {
		status := a.api("/api/replicas", &v)
		verify.Require(t, status == 200, "status %d", status)
		return v
	}
	var v admin.Replicas // the last view
	agree := func(instances int) func() bool {
		return func() bool {
			v = view()
			if v.Converged == nil || !*v.Converged || len(v.Replicas) != 2 || v.Registration.State != "registered" {
				return false
			}
			for _, m := range v.Replicas {
				if m.Services != 1 || m.Instances != instances {
					return false
				}
			}
			return true
		}
	}
	a.await("the replicas agree", agree(1))
	verify.That(t, v.Replicas[0].Self != v.Replicas[1].Self && v.Replicas[0].Version == "test" && v.Replicas[0].ConfigHash == v.Replicas[1].ConfigHash, "got %+v", v)
	register("star-2", 9002)
	a.await("the replicas agree after the change", agree(2))

	b.write(text + "shutdown: { grace: 7s }\n")
	a.await("the replicas report different configurations", func() bool {
		v = view()
		return v.Converged != nil && !*v.Converged && len(v.Differences) == 1 && v.Differences[0].Kind == "config"
	})
	a.write(text + "shutdown: { grace: 7s }\n")
	a.await("the replicas agree again", agree(2))

	b.stop()
	a.await("the other replica has left", func() bool { return len(view().Replicas) == 1 })
}

// If the watches use all connections to the agent, the registration does not wait for an
// answer to one of them.
func TestRegistersWhileWatchesUseAllConnections(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	star := &api.AgentServiceRegistration{ID: "star-1", Name: "star", Address: "127.0.0.1", Port: port(t, origin(t, "star"))}
	verify.NoError(t, agent.Client().Agent().ServiceRegister(star))
	r := start(t, fmt.Sprintf("consul: { addresses: [%q], max_watches: 1, wait: 10m, orders: off, register: {} }\nservices: { star: { consul: {} } }\nroutes: [{ service: star }]\n", agent.URL()))
	r.await("the registration", func() bool { return len(instances(t, agent, "sluice")) == 1 })
	r.stop()
	r.await("the registration is removed", func() bool { return len(instances(t, agent, "sluice")) == 0 })
}

func TestConfigurationRefusesReservedMeta(t *testing.T) {
	t.Parallel()
	for _, key := range []string{
		registration.MetaReplica, registration.MetaHost, registration.MetaAdmin,
		registration.MetaVersion, registration.MetaStarted, registration.MetaConfig,
	} {
		_, err := configtest.Build(fmt.Sprintf("consul: { register: { meta: [%s=x] } }\nservices: { a: { consul: {} } }\nroutes: [{ service: a }]", key))
		verify.That(t, err != nil && strings.Contains(err.Error(), "consul.register.meta[0]"), "%s: error %v", key, err)
	}
}

// A registration that the new configuration lacks, or has under another name, goes with the
// old process.
func TestNewProcessRemovesTheRegistration(t *testing.T) {
	t.Parallel()
	for name, register := range map[string]string{"no registration": "", "another name": ", register: { service: edge, check: { interval: 1s } }"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent := consultest.Start(t, consultest.Options{})
			text := func(register string) string {
				return fmt.Sprintf("shutdown: { idle: 0s }\nconsul: { addresses: [%q]%s }\n", agent.URL(), register) + static("a", origin(t, "a"))
			}
			old := start(t, text(", register: { check: { interval: 1s } }"))
			old.await("the registration", func() bool { return len(instances(t, agent, "sluice")) == 1 })
			next := old.upgrade(text(register), nil)
			next.await("the registration of the old process is removed", func() bool { return len(instances(t, agent, "sluice")) == 0 })
			if register != "" {
				next.await("the other registration", func() bool { return len(instances(t, agent, "edge")) == 1 })
			}
			next.stop()
			next.await("nothing is registered", func() bool { return len(instances(t, agent, "edge")) == 0 })
		})
	}
}
