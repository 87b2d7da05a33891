package gateway

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/admin"
	"sluice/config"
	"sluice/consul/mesh"
	"sluice/observe/events"
	"sluice/test/configtest"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// nativeInstance registers an instance of a Connect-native service with a version.
func nativeInstance(t *testing.T, agent *consultest.Agent, service, version string, port int) {
	t.Helper()
	err := agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: service, ID: service + "-" + version, Address: "127.0.0.1", Port: port, Meta: map[string]string{"version": version},
		Connect: &api.AgentServiceConnect{Native: true},
	})
	verify.NoError(t, err)
}

// splitChain returns the entries of a service whose requests are divided among two versions.
func splitChain(service string, v1 float32) []api.ConfigEntry {
	return []api.ConfigEntry{
		&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: service, Protocol: "http"},
		&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: service, Subsets: map[string]api.ServiceResolverSubset{
			"v1": {Filter: `Service.Meta.version == "1"`}, "v2": {Filter: `Service.Meta.version == "2"`},
		}},
		&api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: service, Splits: []api.ServiceSplit{
			{Weight: v1, ServiceSubset: "v1"}, {Weight: 100 - v1, ServiceSubset: "v2"},
		}},
		&api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: service, Routes: []api.ServiceRoute{{
			Match:       &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{PathPrefix: "/new"}},
			Destination: &api.ServiceRouteDestination{ServiceSubset: "v2", RetryOnStatusCodes: []uint32{503}},
		}}},
	}
}

// unusableChain returns the entries of a service whose chain leads to more sets of instances than
// sluice accepts.
func unusableChain(service string) []api.ConfigEntry {
	subsets, many := make(map[string]api.ServiceResolverSubset), &api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: service}
	for i := range 300 {
		subset := fmt.Sprintf("v%d", i+1)
		subsets[subset] = api.ServiceResolverSubset{Filter: fmt.Sprintf(`Service.Meta.version == "%d"`, i+1)}
		many.Routes = append(many.Routes, api.ServiceRoute{
			Match:       &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{PathPrefix: "/" + subset}},
			Destination: &api.ServiceRouteDestination{ServiceSubset: subset},
		})
	}
	return []api.ConfigEntry{&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: service, Subsets: subsets}, many}
}

func (r *running) refusesChain() bool { return strings.Contains(r.chain().Refused, "256") }

func writeEntries(t *testing.T, agent *consultest.Agent, entries ...api.ConfigEntry) {
	t.Helper()
	for _, e := range entries {
		_, _, err := agent.Client().ConfigEntries().Set(e, nil)
		verify.Require(t, err == nil, "%s %s: %v", e.GetKind(), e.GetName(), err)
	}
}

// pooled returns the ids of the instances in the pool of each service whose name begins with a
// prefix.
func (r *running) pooled(prefix string) string {
	var all []string
	for _, s := range r.services.all() {
		if !strings.HasPrefix(s.name, prefix) {
			continue
		}
		var ids []string
		for _, p := range s.pool.Snapshot().All {
			ids = append(ids, p.Instance().ID)
		}
		slices.Sort(ids)
		all = append(all, fmt.Sprintf("%s=%v", s.name, ids))
	}
	return strings.Join(all, " ")
}

func (r *running) awaitPooled(prefix, want string) {
	r.t.Helper()
	consultest.Await(r.t, "the pools are "+want, func() bool { return r.pooled(prefix) == want })
}

func (r *running) chain() admin.Chain {
	r.t.Helper()
	all := r.chains.statuses(r.config())
	verify.Require(r.t, len(all) == 1, "chains %+v", all)
	return all[0]
}

// A chain of the service web that can be used, and one that cannot.
var (
	goodChain = &mesh.Compiled{ServiceName: "web", StartNode: "web", Nodes: map[string]mesh.Node{"web": {Type: mesh.NodeResolver, Resolver: &mesh.Resolver{Target: "web"}}},
		Targets: map[string]mesh.Target{"web": {Service: "web", SNI: "web.sni"}}}
	badChain = &mesh.Compiled{ServiceName: "web", StartNode: "gone"}
)

// A chain that cannot be used leaves the one before in use, with the changed settings of the
// service.
func TestUnusableChains(t *testing.T) {
	t.Parallel()
	connect := configtest.Must(t, "services: { web: { consul: { connect: true } } }\nroutes: [{ service: web }]\n").Services["web"]
	id := mesh.ChainID{Service: "web"}
	first := translate("web", id, connect, badChain, nil)
	verify.That(t, first.wrong != nil && first.used == nil, "%+v", first)
	one := translate("web", id, connect, goodChain, first)
	verify.That(t, one.wrong == nil && one.result.Service.Consul.Targets[0].SNI == "web.sni", "%+v", one)
	verify.That(t, translate("web", id, connect, goodChain, one) == one, "translated again")
	connect.Retry.Attempts++
	two := translate("web", id, connect, badChain, one)
	verify.That(t, two.wrong != nil && two.used == goodChain && two.result.Service.Retry.Attempts == connect.Retry.Attempts, "%+v", two)
	verify.That(t, translate("web", mesh.ChainID{Service: "api"}, connect, badChain, two).used == nil, "the chain of another service is used")
}

// A configuration that lacks the service, or has another chain for it, and is refused, ends no
// chain that is used in place of one that cannot be used.
func TestUnusableChainAndARefusedConfiguration(t *testing.T) {
	t.Parallel()
	parse := func(keys string) *config.Config {
		return configtest.Must(t, "services: { api: { peers: ['127.0.0.1:1'] }"+keys+" }\nroutes: [{ service: api }]\n")
	}
	id := mesh.ChainID{Service: "web"}
	c := newChains(mesh.ChainOptions{Log: zerolog.Nop()}, events.New())
	c.watch.Pause()
	c.watch.Restore([]mesh.ChainState{{ChainID: id, Compiled: badChain}})
	c.inUse = map[string]*serviceChain{"web": {id: id, used: goodChain}}
	inUse := parse(", web: { consul: { connect: true } }")
	targets := func(when string) {
		t.Helper()
		c.follow(t.Context(), inUse, 0)
		completed := c.complete(inUse)
		verify.Equal(t, len(completed.Services["web"].Consul.Targets), 1, "%s: targets of the service", when)
		c.applied(completed)
	}
	targets("with the chain in use")
	for _, refused := range []string{"", ", web: { consul: { connect: true, datacenters: [other] } }"} {
		other := parse(refused)
		c.follow(t.Context(), other, 0)
		c.complete(other)
		targets("after a refused configuration")
	}
}

// A service whose chain cannot be used, and never could, has no peers: the chain may lead elsewhere
// than to the instances of the service. This process does not wait for them.
func TestUnusableChainFromTheStart(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	nativeInstance(t, agent, "web", "1", 1)
	nativeInstance(t, agent, "plain", "1", 1)
	writeEntries(t, agent, splitChain("web", 90)[0])
	writeEntries(t, agent, unusableChain("web")...)
	r := startWithin(t, preamble+"consul: { addresses: ["+agent.URL()+"] }\nservices: { web: { consul: { connect: true } }, plain: { consul: {} } }\nroutes: [{ service: web }]\n", time.Millisecond)
	consultest.Await(t, "the chain is refused", r.refusesChain)
	r.awaitPooled("plain", "plain=[plain-1]")
	consultest.AwaitPromptly(t, "readiness does not wait for the chain, and says what is missing", func() bool {
		ready, missing := r.progressAfter(0)
		return ready && strings.Contains(missing, `service "web": no discovery chain yet: `)
	})
	r.awaitReady()
	verify.Equal(t, r.pooled("web"), "web=[]", "the pools")

	_, err := agent.Client().ConfigEntries().Delete(api.ServiceRouter, "web", nil)
	verify.NoError(t, err)
	writeEntries(t, agent, splitChain("web", 90)...)
	r.awaitPooled("web", "web=[web-1] web@v1=[web-1] web@v2=[]")
}

// Without the right to read the chain a service has no peers, and /readyz names the right.
func TestDiscoveryChainsWithoutTheRight(t *testing.T) {
	t.Parallel()
	agent, name := sharedWithACLs.Agent(t)
	token, _, err := agent.Client().ACL().TokenCreate(&api.ACLToken{}, nil)
	verify.NoError(t, err)
	r := startWithin(t, fmt.Sprintf(preamble+"consul: { addresses: [%q], token: %s }\n"+
		"services: { web: { consul: { connect: true, service: %s } } }\nroutes: [{ service: web }]\n", agent.URL(), token.SecretID, name), time.Millisecond)
	consultest.AwaitPromptly(t, "readiness does not wait for the chain, and names the right", func() bool {
		p := r.readiness.progress(0)
		missing := strings.Join(p.missing, "")
		return !p.wait && strings.Contains(missing, "no discovery chain yet") &&
			strings.Contains(missing, fmt.Sprintf("service:read: service %q { policy = \"read\" }", name))
	})
	verify.That(t, !r.chain().Known && r.chain().LastError != "", "chain %+v", r.chain())
}

// After a restart, a service in the mesh goes on with the instances of the snapshot by the usual
// rules, as others do.
func TestSnapshotOfAServiceInTheMesh(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	nativeInstance(t, agent, "web", "1", 1)
	nativeInstance(t, agent, "web", "2", 2)
	r := start(t, preamble+fmt.Sprintf("consul: { addresses: [%q] }\ndiscovery: { snapshot: %q }\nservices: { web: { consul: { connect: true } } }\nroutes: [{ service: web }]\n",
		agent.URL(), filepath.Join(t.TempDir(), "snapshot.json")))
	r.awaitPooled("web", "web=[web-1 web-2]")
	r.end()
	verify.NoError(t, agent.Restart(t.Context())) // without its state
	r = r.restart()
	consultest.Await(t, "an answer of Consul", func() bool { return r.watchOf("web").State == "fresh" })
	r.awaitPooled("web", "web=[web-1 web-2]")
	for _, peer := range r.services.pool("web").Snapshot().All {
		verify.That(t, !peer.Instance().Probation.IsZero(), "%s is not on probation", peer)
	}
}

// A service in the mesh that gets another name keeps its peers and those of its chain while Consul
// is away, and the chain in use in place of one that cannot be used.
func TestRenamedServiceOfTheMesh(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	nativeInstance(t, agent, "web", "1", 1)
	nativeInstance(t, agent, "web", "2", 2)
	writeEntries(t, agent, splitChain("web", 90)...)
	text := preamble + "consul: { addresses: [" + agent.URL() + "] }\nservices: { web: { consul: { service: web, connect: true } } }\nroutes: [{ service: web }]\n"
	r := start(t, text)
	const pools = "web=[web-1 web-2] web@v1=[web-1] web@v2=[web-2]"
	r.awaitPooled("web", pools)
	r.awaitLog("the discovery chain is in use") // the pools have their peers before
	used := r.chain()
	verify.Slices(t, used.Entries, []string{"service-resolver web", "service-router web", "service-splitter web"}, "entries")
	verify.That(t, len(used.Problems) == 1 && r.chains.problems()["web"] == 1 && used.Protocol == "http" && !used.Default, "chain %+v", used)
	verify.That(t, !strings.Contains(r.log.String(), "services found in the catalog"), "derived services were found")
	consultest.Await(t, "a certificate", func() bool { return r.mesh.identity.Current() != nil })
	writeEntries(t, agent, unusableChain("web")...)
	consultest.Await(t, "the chain is refused", r.refusesChain)
	verify.NoError(t, agent.Stop())
	consultest.Await(t, "the outage", func() bool { return r.watchOf("web").State == "stale" })

	r.waits.warm = time.Second // in vain, if the peers are lost
	renamed := strings.NewReplacer("services: { web:", "services: { shop:", "service: web }]", "service: shop }]").Replace(text)
	r.replace(renamed)
	consultest.AwaitPromptly(t, "the peers of the other name", func() bool {
		return r.pooled("shop") == strings.NewReplacer("web=", "shop=", "web@", "shop@").Replace(pools)
	})
	verify.Equal(t, len(r.services.pool("shop").Snapshot().Eligible), 2, "peers that get requests")
	verify.That(t, r.refusesChain(), "chain %+v", r.chain())

	r = r.upgrade(text, nil)
	consultest.AwaitPromptly(t, "the peers of the former name in a new process", func() bool { return r.pooled("web") == pools })
}
