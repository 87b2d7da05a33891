package doctor

import (
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/config"
	consulsource "sluice/discovery/consul"
	"sluice/test/configtest"
	"sluice/test/consultest"
	"sluice/test/meshtest"
	"sluice/test/verify"
)

// TestMesh examines a mesh with default policy deny, while it changes.
func TestMesh(t *testing.T) {
	t.Parallel()
	m := meshtest.Start(t, consultest.Options{Node: "a", ACLs: true})
	web := meshtest.ServeHTTP(t, "web-1")
	m.Envoy(t, meshtest.Service{Name: "web", ID: "web-1", Port: web.Port}, "http")
	m.AwaitPassing(t, "web", 1)
	use := Use{Name: "site", Source: consulsource.ServiceOptions{Service: "web"}, Routed: true, Mesh: true}
	look := func(token string) *Report {
		t.Helper()
		return examine(t, newDoctor(t, m.Agent, nil, func(o *Options) {
			o.Consul.Token, o.Config, o.MeshName, o.Uses = token, new(config.Config), "sluice", []Use{use}
		}))
	}
	// codes fails if the report has other findings about the mesh.
	codes := func(when string, r *Report, want ...Code) {
		t.Helper()
		var got []Code
		for _, f := range r.Findings {
			if strings.HasPrefix(string(f.Code), "mesh-") {
				got = append(got, f.Code)
			}
		}
		verify.Slices(t, got, want, "%s: findings\n%s", when, r.text(t))
	}

	// Each missing right is named, and what a finding shows is enough.
	const some = "node_prefix \"\" { policy = \"read\" }\nagent_prefix \"\" { policy = \"read\" }\n"
	report := look(token(t, m.Agent, "nothing", some))
	codes("without rights", report, CodeMeshIdentity, CodeMeshRefused)
	rules := some + one(t, report, CodeMeshIdentity).Policy + one(t, report, CodeMeshRefused).Policy
	verify.Contains(t, rules, `service "sluice" { policy = "write" }`, "the policy")
	ours := token(t, m.Agent, "sluice", rules)
	report = look(ours)
	codes("no intention", report, CodeMeshDenied)
	denied := one(t, report, CodeMeshDenied)
	verify.Contains(t, denied.Seen, "no intention is about sluice and web", "what is seen")
	report = look(token(t, m.Agent, "one-name", some+`service "web" { policy = "read" }`+"\n"+`service "sluice" { policy = "write" }`))
	verify.Contains(t, one(t, report, CodeMeshMissing).Policy, `service_prefix "web"`, "what reading sidecars needs")

	// What the finding says repairs it.
	verify.Contains(t, denied.Do, "add the source sluice with the action allow to its service-intentions", "what to do")
	allow := meshtest.Allow("sluice")
	m.Intend(t, "web", allow)
	codes("allowed", look(ours))
	m.Intend(t, "web", meshtest.Deny("*"))
	verify.Contains(t, one(t, look(ours), CodeMeshDenied).Seen, `the intention "*" => "web" denies it`, "what is seen")
	m.Intend(t, "web", meshtest.Deny("*"), allow)
	codes("one for sluice", look(ours))
	m.Intend(t, "web", meshtest.Allow("*"), meshtest.Deny("sluice"))
	verify.Contains(t, one(t, look(ours), CodeMeshDenied).Seen, `the intention "sluice" => "web" denies it`, "what is seen")
	m.Intend(t, "web")
	m.Intend(t, "*", meshtest.Deny("*"))
	verify.Contains(t, one(t, look(ours), CodeMeshDenied).Seen, `the intention "*" => "*" denies it`, "what is seen")

	// By request.
	m.SetProtocol(t, "web", "http")
	path := func(action api.IntentionAction) *api.IntentionPermission {
		return &api.IntentionPermission{Action: action, HTTP: &api.IntentionHTTPPermission{PathPrefix: "/x"}}
	}
	m.Intend(t, "web", meshtest.ByRequest("sluice", path(api.IntentionActionAllow)))
	codes("some requests", look(ours))
	m.Intend(t, "web", meshtest.ByRequest("sluice", path(api.IntentionActionDeny)))
	codes("no requests", look(ours), CodeMeshDenied)
	m.Intend(t, "web", meshtest.Allow("sluice"))

	// The destinations are those of the discovery chain.
	m.SetProtocol(t, "shop", "http")
	m.Write(t, &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web", Redirect: &api.ServiceResolverRedirect{Service: "shop"}})
	verify.Contains(t, one(t, look(ours), CodeMeshRefused).Policy, `service_prefix "shop"`, "what the destination needs")
	m.Delete(t, api.ServiceResolver, "web")

	m.Write(t, &api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: "web"})
	codes("a router", look(ours))
	m.Write(t, &api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: "web", Routes: []api.ServiceRoute{{
		Match:       &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{PathPrefix: "/x"}},
		Destination: &api.ServiceRouteDestination{NumRetries: 1, RetryOnStatusCodes: []uint32{503}},
	}}})
	report = look(ours)
	codes("a router that is not carried out as a whole", report, CodeMeshChain)
	verify.Contains(t, one(t, report, CodeMeshChain).Seen, "service-router web", "what is seen")
	m.Write(t, &api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: "web"})
	use.Listener = "db"
	verify.Contains(t, one(t, look(ours), CodeMeshProtocol).Seen, "it has a service-router, and the listener db for TCP", "what is seen")
	use.Listener = ""

	// Entries about sluice as the source: it has no proxy of Consul that carries them out.
	m.Write(t, &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "sluice", Protocol: "http", UpstreamConfig: &api.UpstreamConfiguration{
		Overrides: []*api.UpstreamConfig{{Name: "web", ConnectTimeoutMs: 100}},
	}})
	m.Write(t, &api.MeshConfigEntry{TLS: &api.MeshTLSConfig{Outgoing: &api.MeshDirectionalTLSConfig{TLSMinVersion: "TLSv1_3"}}})
	m.Write(t, &api.IngressGatewayConfigEntry{Kind: api.IngressGateway, Name: "sluice", Listeners: []api.IngressListener{
		{Port: 8080, Protocol: "http", Services: []api.IngressService{{Name: "web"}}},
	}})
	var seen []string
	for _, f := range look(ours).of(CodeMeshSource) {
		seen = append(seen, f.Seen)
	}
	slices.Sort(seen)
	verify.Slices(t, seen, []string{"ingress-gateway sluice is not carried out", "mesh: TLS.Outgoing.TLSMinVersion is not carried out",
		"service-defaults sluice: UpstreamConfig.Overrides of web is not carried out"}, "what is seen of entries about sluice")
	m.Delete(t, api.IngressGateway, "sluice")
	m.Delete(t, api.MeshConfig, "mesh")
	m.Delete(t, api.ServiceDefaults, "sluice")

	// A service of the catalog, with a route in a tag.
	register := func(r *api.AgentServiceRegistration) {
		t.Helper()
		verify.NoError(t, m.Client().Agent().ServiceRegister(r))
		consultest.Await(t, r.Name+" is in the catalog", func() bool {
			found, _, err := m.Client().Catalog().Service(r.Name, "", nil)
			return err == nil && len(found) == 1
		})
	}
	register(&api.AgentServiceRegistration{Name: "tagged", Port: 1, Tags: []string{"sluice.route=h/"}})
	for text, want := range map[string]int{"catalog: { tags: [sluice], connect: true, claims: [{ service: '*', hosts: [h] }] }": 1, "catalog: { tags: [sluice], claims: [{ service: '*', hosts: [h] }] }": 0} {
		report = examine(t, newDoctor(t, m.Agent, nil, func(o *Options) {
			o.Consul.Token, o.MeshName, o.Config = m.Token(), "sluice", configtest.Must(t, text)
		}))
		missing := report.of(CodeMeshMissing)
		verify.That(t, len(missing) == want, "%s: %s", text, report.text(t))
		verify.That(t, want == 0 || missing[0].Service == "tagged", "%s: %+v", text, missing)
	}

	// Two roots.
	m.RotateCA(t)
	codes("after a rotation", look(ours))

	// A sidecar, and its service is gone.
	register(&api.AgentServiceRegistration{
		Kind: api.ServiceKindConnectProxy, Name: "gone-sidecar-proxy", ID: "gone-1-proxy", Port: 21000, Address: "127.0.0.1",
		Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: "gone", DestinationServiceID: "gone-1"},
	})
	report = look(m.Token())
	codes("a sidecar without its service", report, CodeMeshSidecar)
	f := one(t, report, CodeMeshSidecar)
	verify.That(t, f.ID == "gone-1-proxy" && strings.Contains(f.Seen, "gone gone-1"), "%+v", f)
	codes("it may be hidden", look(ours))

	// An instance without a sidecar.
	register(&api.AgentServiceRegistration{Name: "plain", Port: 1})
	use.Source.Service = "plain"
	m.Intend(t, "plain", meshtest.Allow("sluice"))
	verify.Contains(t, one(t, look(m.Token()), CodeMeshMissing).Seen, "1 instance of it, and none in the mesh", "what is seen")
}

// Without the mesh, the certificate is missing, and not the rights.
func TestMeshThatIsOff(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{Config: map[string]any{"connect": map[string]any{"enabled": false}}})
	report := examine(t, newDoctor(t, agent, nil, func(o *Options) {
		o.Config, o.MeshName = new(config.Config), "sluice"
		o.Uses = []Use{{Name: "web", Source: consulsource.ServiceOptions{Service: "web"}, Routed: true, Mesh: true}}
	}))
	f := one(t, report, CodeMeshIdentity)
	verify.That(t, strings.Contains(f.Seen, "Connect must be enabled") && strings.Contains(f.Do, "connect { enabled = true }") && f.Policy == "", "%+v", f)
	verify.That(t, len(report.of(CodeMeshRefused)) == 0, "%+v", report.Findings)
}
