package consul

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// registerSidecar registers an instance of web with a port until t ends, and a sidecar at port +
// 100.
func registerSidecar(t *testing.T, agent *consultest.Agent, id, version string, port int) {
	t.Helper()
	t.Cleanup(func() { _ = agent.Client().Agent().ServiceDeregister(id) }) // with the sidecar
	registerTTL(t, agent, "web", id, port, func(r *api.AgentServiceRegistration) {
		r.Meta = map[string]string{"version": version}
		r.TaggedAddresses = map[string]api.ServiceAddress{"wan": {Address: "127.0.0.2", Port: port}}
		r.Connect = &api.AgentServiceConnect{SidecarService: &api.AgentServiceRegistration{
			Address: "127.0.0.1", Port: port + 100,
			// A check of the service (alias) may first be answered after two minutes.
			Checks:          api.AgentServiceChecks{{CheckID: "sidecar-" + id, TTL: "1h", Status: api.HealthPassing}},
			TaggedAddresses: map[string]api.ServiceAddress{"wan": {Address: "127.0.0.2", Port: port + 100}},
		}}
	})
}

// registerGateway registers a mesh gateway, whose WAN address has the port after its own.
func registerGateway(t *testing.T, agent *consultest.Agent, id string, port int) {
	t.Helper()
	registerTTL(t, agent, "mesh-gateway", id, port, func(r *api.AgentServiceRegistration) {
		r.Kind = api.ServiceKindMeshGateway
		r.TaggedAddresses = map[string]api.ServiceAddress{"wan": {Address: "127.0.0.2", Port: port + 1}}
	})
}

// reached returns how the instances are reached, one per line.
func reached(set []discovery.Instance) string {
	var lines []string
	for _, i := range set {
		lines = append(lines, fmt.Sprintf("%s %d %s %s %s", i.ID, i.Priority, i.HostPort(), i.ServerName, i.Identity))
	}
	return strings.Join(lines, "\n")
}

// meshTargets has a subset, the whole service, and the service in another data centre.
func meshTargets(gateway string) ServiceOptions {
	return ServiceOptions{
		Service: "web", Connect: true, MeshGateway: "mesh-gateway", Filter: `Service.Meta.version != "0"`,
		Targets: []Target{
			{Service: "web", Subset: "v1", Filter: `Service.Meta.version == "1" or Service.Meta.version == "0"`, SNI: "v1.web"},
			{Service: "web", SNI: "web"},
			{Service: "web", Datacenter: "dc2", Gateway: gateway, SNI: "web.dc2"},
		},
	}
}

// meshTargetsAreReached has the targets of a discovery chain, in two data centres with mesh
// gateways.
func meshTargetsAreReached(t *testing.T, one, two *consultest.Agent) {
	registerSidecar(t, one, "a", "1", 8001)
	registerSidecar(t, one, "b", "2", 8002)
	registerSidecar(t, one, "c", "0", 8003)
	registerSidecar(t, two, "x", "2", 8004)
	registerGateway(t, one, "gw1", 7001)
	registerGateway(t, two, "gw2", 7003)
	registerTTL(t, two, "mesh-gateway", "mistaken", 7005, nil) // none by its kind

	const own = `a-sidecar-proxy 0 127.0.0.1:8101 v1.web /ns/default/dc/dc1/svc/web
b-sidecar-proxy 1 127.0.0.1:8102 web /ns/default/dc/dc1/svc/web
`
	for gateway, want := range map[string]string{
		"":       "x-sidecar-proxy 2 127.0.0.2:8104 web.dc2 /ns/default/dc/dc2/svc/web",
		"none":   "x-sidecar-proxy 2 127.0.0.2:8104 web.dc2 /ns/default/dc/dc2/svc/web",
		"local":  "gw1@web.dc2 2 127.0.0.1:7001 web.dc2 /ns/default/dc/dc2/svc/web",
		"remote": "gw2@web.dc2 2 127.0.0.2:7004 web.dc2 /ns/default/dc/dc2/svc/web",
	} {
		watchReal(t, one, meshTargets(gateway)).awaitAs(reached, own+want) // the targets are known in any order
	}

	o := meshTargets("remote")
	r := watchReal(t, one, o)
	r.await("a-sidecar-proxy b-sidecar-proxy gw2@web.dc2")
	// TestGatewaysOfATarget has what else may happen.
	verify.NoError(t, two.Client().Agent().UpdateTTL("sidecar-x", "refused", api.HealthCritical))
	set := r.await("a-sidecar-proxy b-sidecar-proxy gw2@web.dc2:critical")
	verify.Equal(t, set[2].Detail, "no instance of web.dc2 is in service behind the mesh gateway", "why")
	verify.NoError(t, two.Client().Agent().UpdateTTL("sidecar-x", "", api.HealthPassing))
	r.await("a-sidecar-proxy b-sidecar-proxy gw2@web.dc2")
	registerGateway(t, two, "gw3", 7006)
	r.await("a-sidecar-proxy b-sidecar-proxy gw2@web.dc2 gw3@web.dc2")
}

// TestRealPeering has two clusters that are peered, of which one exports a service.
func TestRealPeering(t *testing.T) {
	t.Parallel()
	agents := consultest.StartAll(t, consultest.Options{Node: "west"}, consultest.Options{Node: "east"})
	west, east := agents[0], agents[1]
	registerSidecar(t, east, "x", "2", 8004)
	registerGateway(t, east, "gw-east", 7003)
	registerGateway(t, west, "gw-west", 7001)
	consultest.Peer(t, west, east)
	_, _, err := east.Client().ConfigEntries().Set(&api.ExportedServicesConfigEntry{Name: "default", Services: []api.ExportedService{
		{Name: "web", Consumers: []api.ServiceConsumer{{Peer: "west"}}},
	}}, nil)
	verify.NoError(t, err)

	roots, _, err := east.Client().Connect().CARoots(nil)
	verify.NoError(t, err)
	domain := roots.TrustDomain
	identities := fmt.Sprintf("web.default.default.west.external.%s spiffe://%s/ns/default/dc/dc1/svc/web spiffe://%s/gateway/mesh/dc/dc1", domain, domain, domain)
	for gateway, want := range map[string]string{
		"":      "web-sidecar-proxy-instance-0 0 127.0.0.2:7004 " + identities,
		"local": "gw-west@web.external.east 0 127.0.0.1:7001 " + identities,
	} {
		o := ServiceOptions{Service: "web", Connect: true, MeshGateway: "mesh-gateway", Targets: []Target{{Service: "web", Peer: "east", Gateway: gateway}}}
		id, _, _ := strings.Cut(want, " ")
		set := watchReal(t, west, o).await(id)
		verify.Equal(t, reached(set), want, "mode %q", gateway)
	}
}
