package registration

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/http/httputil"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"sluice/consul"
	"sluice/test/consultest"
	"sluice/test/parallel"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

func TestMain(m *testing.M) {
	parallel.SetDefault(8) // the tests mostly wait for Consul
	goleak.VerifyTestMain(m)
}

// realRegistrar is a registrar and its client.
type realRegistrar struct {
	*Registrar
	t    *testing.T
	log  *subprocess.Output
	stop func() // ends Run and waits for that
}

var someSelf = Replica{Host: "web1", Admin: "127.0.0.1:8081", Version: "v1", Started: time.Unix(1700000000, 0)}

// withCheck returns settings with a type of check.
func withCheck(t CheckType) *Settings {
	return &Settings{Listener: "127.0.0.1:8080", Name: "sluice", Check: Check{Type: t, Path: "/readyz", Interval: 10 * time.Second, Timeout: time.Second}}
}

// startReal registers with real agents until t ends.
func startReal(t *testing.T, self Replica, s *Settings, token string, addresses ...string) *realRegistrar {
	t.Helper()
	r := &realRegistrar{t: t, log: new(subprocess.Output)}
	log := zerolog.New(r.log)
	client := verify.Result(consul.New(consul.Options{Addresses: addresses, Token: token, Log: log})).Must(t)
	r.Registrar = New(Options{Consul: client, Self: self.Self(), Ready: func(context.Context) (bool, []string) { return true, nil }, Log: log})
	r.Set(s)
	t.Cleanup(func() {
		client.Close()
		if t.Failed() {
			t.Logf("log:\n%s", r.log)
		}
	})
	r.stop = parallel.Run(t, r.Run)
	return r
}

// catalog returns the instances of sluice in the catalog: "id@node status",
// sorted.
func catalog(agent *consultest.Agent) []string {
	entries, _, err := agent.Client().Health().Service("sluice", "", false, nil)
	if err != nil {
		return []string{err.Error()}
	}
	var list []string
	for _, e := range entries {
		list = append(list, fmt.Sprintf("%s@%s %s", e.Service.ID, e.Node.Node, e.Checks.AggregatedStatus()))
	}
	slices.Sort(list)
	return list
}

// awaitCatalog waits for the instances in the catalog.
func awaitCatalog(t *testing.T, agent *consultest.Agent, want ...string) {
	t.Helper()
	consultest.Await(t, fmt.Sprintf("the catalog has %q", want), func() bool { return slices.Equal(catalog(agent), want) })
}

func TestRealAgent(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{Node: "n"})
	for name, test := range map[string]func(t *testing.T, agent *consultest.Agent){
		"it registers and leaves": registersAndLeaves, "it takes over": takesOver,
		"it keeps the maintenance mode": keepsMaintenance, "an agent with two addresses": agentWithTwoAddresses,
	} {
		t.Run(name, func(t *testing.T) { test(t, agent) })
		services := verify.Result(agent.Client().Agent().Services()).Must(t)
		for id := range services { // that a test has left
			verify.NoError(t, agent.Client().Agent().ServiceDeregister(id))
		}
		awaitCatalog(t, agent)
	}
}

// Agents behind a balancer, of which the catalog learns what each has a while later.
func TestRealAgents(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t, consultest.Options{Node: "server"})
	agent := consultest.Start(t, consultest.Options{Mode: consultest.Client, Node: "agent", Join: []string{server.SerfAddress()}})
	agentsBehindABalancer(t, server, agent)
}

func registersAndLeaves(t *testing.T, agent *consultest.Agent) {
	s := withCheck(CheckTTL)
	s.Tags, s.Meta = []string{"edge"}, map[string]string{"rack": "7", MetaConfig: "abc"}
	r := startReal(t, someSelf, s, "", agent.URL())
	awaitCatalog(t, agent, "sluice-web1-8080@n passing")
	entries, _, err := agent.Client().Health().Service("sluice", "edge", true, nil)
	verify.Require(t, err == nil && len(entries) == 1, "%d entries, %v", len(entries), err)
	service := entries[0].Service
	verify.That(t, service.Address == "127.0.0.1" && service.Port == 8080, "got %+v", service)
	verify.That(t, service.Meta["rack"] == "7" && service.Meta[MetaConfig] == "abc" && service.Meta[MetaAdmin] == "127.0.0.1:8081", "got %+v", service)
	consultest.Await(t, "the status says so", func() bool { s := r.Status(); return s.State == StateRegistered && s.Check == CheckTTL })

	r.Set(nil)
	awaitCatalog(t, agent)
	consultest.Await(t, "the status says so", func() bool { return r.Status().State == StateOff })
	r.Set(s)
	awaitCatalog(t, agent, "sluice-web1-8080@n passing")

	r.stop()
	r.Leave(t.Context())
	awaitCatalog(t, agent)
	verify.Equal(t, r.Status().State, StateLeft, "state")
}

// takesOver: a registration of an earlier process with another id is replaced: it has the same
// address of the admin API.
func takesOver(t *testing.T, agent *consultest.Agent) {
	unhurried := withCheck(CheckTTL)
	unhurried.Check.Interval = time.Hour // it stays passing for all of the test
	before := startReal(t, someSelf, unhurried, "", agent.URL())
	awaitCatalog(t, agent, "sluice-web1-8080@n passing")
	before.stop()

	other := someSelf
	other.Admin = "127.0.0.1:9081"
	settings := withCheck(CheckNone)
	settings.Listener = "127.0.0.1:9080"
	startReal(t, other, settings, "", agent.URL())
	awaitCatalog(t, agent, "sluice-web1-8080@n passing", "sluice-web1-9080@n passing")

	after := someSelf
	after.Version = "v2"
	settings = withCheck(CheckTTL)
	settings.Listener = "127.0.0.1:80"
	startReal(t, after, settings, "", agent.URL())
	awaitCatalog(t, agent, "sluice-web1-80@n passing", "sluice-web1-9080@n passing")
}

// keepsMaintenance: later registrations, also with another type of check, change neither the status
// nor the maintenance mode.
func keepsMaintenance(t *testing.T, agent *consultest.Agent) {
	r := startReal(t, someSelf, withCheck(CheckTTL), "", agent.URL())
	awaitCatalog(t, agent, "sluice-web1-8080@n passing")
	verify.NoError(t, agent.Client().Agent().EnableServiceMaintenance("sluice-web1-8080", "work"))
	awaitCatalog(t, agent, "sluice-web1-8080@n maintenance")
	s := withCheck(CheckTTL)
	s.Meta = map[string]string{MetaConfig: "other"}
	for _, s := range []*Settings{s, withCheck(CheckTCP)} {
		n := r.Status().Registrations
		r.Set(s)
		consultest.Await(t, "it is registered again", func() bool { return r.Status().Registrations > n })
		awaitCatalog(t, agent, "sluice-web1-8080@n maintenance")
	}
	checks, err := agent.Client().Agent().ChecksWithFilter("ServiceID == `sluice-web1-8080`")
	verify.That(t, err == nil && len(checks) == 2 && checks["sluice-tcp:sluice-web1-8080"] != nil, "checks %v, %v", checks, err)
}

// agentsBehindABalancer are two at one address, which takes them in turn.
func agentsBehindABalancer(t *testing.T, server, agent *consultest.Agent) {
	var turn atomic.Int64
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme = "http"
		r.Out.URL.Host = []string{server.HTTPAddress(), agent.HTTPAddress()}[turn.Add(1)%2]
	}})
	t.Cleanup(proxy.Close)
	r := startReal(t, someSelf, withCheck(CheckTTL), "", proxy.URL)
	once := func() bool {
		list := catalog(server)
		return len(list) == 1 && strings.HasSuffix(list[0], " passing")
	}
	consultest.Await(t, "it is listed once", once)
	s := withCheck(CheckTTL)
	s.Tags = []string{"changed"}
	r.Set(s)
	consultest.Await(t, "it is listed once, changed", func() bool {
		entries, _, err := server.Client().Health().Service("sluice", "changed", true, nil)
		return err == nil && len(entries) == 1 && once()
	})
	r.stop()
	r.Leave(t.Context())
	for _, a := range []*consultest.Agent{server, agent} {
		services, err := a.Client().Agent().Services()
		verify.That(t, err == nil && len(services) == 0, "%s has %v, %v", a.URL(), services, err)
	}
	awaitCatalog(t, server)
}

// agentWithTwoAddresses: a registration at one is not removed through the other.
func agentWithTwoAddresses(t *testing.T, agent *consultest.Agent) {
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	r := startReal(t, someSelf, withCheck(CheckNone), "", relay.URL(), agent.URL())
	awaitCatalog(t, agent, "sluice-web1-8080@n passing")
	relay.Cut()
	consultest.Await(t, "the other address is used", func() bool { return r.Status().Agent == agent.URL() })
	relay.Heal()
	consultest.Await(t, "the first address has been looked at", func() bool { return len(r.Status().Leftovers) == 0 })
	awaitCatalog(t, agent, "sluice-web1-8080@n passing")
	log := r.log.String()
	verify.That(t, !strings.Contains(log, "deregistered"), "log: %s", log)
}

func TestRealACLs(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{Node: "n", ACLs: true})
	policy, token, err := agent.NewToken("sluice", `service "sluice" { policy = "read" }`)
	verify.NoError(t, err)
	r := startReal(t, someSelf, withCheck(CheckTTL), token.SecretID, agent.URL())
	consultest.Await(t, "the refusal is known", func() bool {
		return strings.Contains(r.Status().LastError, `403 Forbidden: the token is not valid, or lacks service:write: service "sluice" { policy = "write" }`)
	})
	policy.Rules = verify.Result(consultest.DocumentedPolicy("../../docs/consul.md", "### What a token must allow")).Must(t)
	_, _, err = agent.Client().ACL().PolicyUpdate(policy, nil)
	verify.NoError(t, err)
	awaitCatalog(t, agent, "sluice-web1-8080@n passing")
	consultest.Await(t, "the log says so", func() bool { return strings.Contains(r.log.String(), `"after":`) })
	log := r.log.String() // a refusal is logged once, and again only after another error
	refused := strings.Count(log, "lacks service:write")
	verify.That(t, refused != 0 && (refused <= 1 || refused != strings.Count(log, `"level":"warn"`)), "log: %s", log)
	r.stop()
	r.Leave(t.Context())
	awaitCatalog(t, agent)
}
