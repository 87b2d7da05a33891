package consul

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/meshtest"
	"sluice/test/verify"
)

// In the mesh, a service is reached by its sidecars and its native instances. Each instance says
// who must answer.
func TestRealMesh(t *testing.T) {
	t.Parallel()
	mesh := meshtest.Start(t, consultest.Options{Node: "node-1"})
	r := watchReal(t, mesh.Agent, ServiceOptions{Service: "web", Connect: true, ServerName: "web.default.dc1.internal.example"})
	r.await("")
	passing := func(id string) *api.AgentServiceCheck {
		return &api.AgentServiceCheck{CheckID: id, TTL: "1h", Status: api.HealthPassing}
	}
	registerTTL(t, mesh.Agent, "web", "a", 8001, func(r *api.AgentServiceRegistration) {
		r.Tags, r.Weights = []string{"v1"}, &api.AgentWeights{Passing: 10, Warning: 1}
		r.Connect = &api.AgentServiceConnect{SidecarService: &api.AgentServiceRegistration{Port: 21001, Check: passing("sidecar-a")}}
	})
	set := r.await("a-sidecar-proxy")
	identified := discovery.Instance{
		Service: "web", ID: "a-sidecar-proxy", Node: "node-1", Address: "127.0.0.1", Port: 21001, NodeAddress: "127.0.0.1",
		Tags: []string{"v1"}, Weight: 1, Datacenter: "dc1", Kind: "connect-proxy",
		ServerName: "web.default.dc1.internal.example", Identity: "/ns/default/dc/dc1/svc/web",
	}
	set[0].Meta = nil
	verify.That(t, set[0].Equal(identified), "got %+v, want %+v", set[0], identified)

	registerTTL(t, mesh.Agent, "web", "b", 8002, func(r *api.AgentServiceRegistration) { r.Connect = &api.AgentServiceConnect{Native: true} })
	set = r.await("a-sidecar-proxy b")
	verify.That(t, set[1].Kind == "" && set[1].Port == 8002 && set[1].Identity == identified.Identity, "native: %+v", set[1])
	registerTTL(t, mesh.Agent, "web", "c", 8003, nil) // outside of the mesh
	registerTTL(t, mesh.Agent, "web", "d", 8004, func(r *api.AgentServiceRegistration) { r.Connect = &api.AgentServiceConnect{Native: true} })
	r.await("a-sidecar-proxy b d")
	registerTTL(t, mesh.Agent, "web", "e", 8005, func(r *api.AgentServiceRegistration) {
		r.Tags, r.Connect = []string{"v1"}, &api.AgentServiceConnect{Native: true}
	})
	r.await("a-sidecar-proxy b d e")
	watchReal(t, mesh.Agent, ServiceOptions{Service: "web", Connect: true, Tags: []string{"V1"}}).await("a-sidecar-proxy e")
}

// Without the right to read the sidecars, the answer lacks them. The error names what the token
// lacks.
func TestRealMeshACLs(t *testing.T) {
	t.Parallel()
	mesh := meshtest.Start(t, consultest.Options{ACLs: true})
	registerTTL(t, mesh.Agent, "web", "a", 8001, func(r *api.AgentServiceRegistration) {
		r.Connect = &api.AgentServiceConnect{SidecarService: &api.AgentServiceRegistration{
			Port: 21001, Check: &api.AgentServiceCheck{CheckID: "sidecar-a", TTL: "1h", Status: api.HealthPassing},
		}}
	})
	const one = `service "web" { policy = "read" } node_prefix "" { policy = "read" }`
	policy, token, err := mesh.NewToken("sluice", one)
	verify.NoError(t, err)
	r := watchRealWith(t, mesh.Agent, token.SecretID, ServiceOptions{Service: "web", Connect: true, Wait: time.Second})
	r.awaitError(`service:read for "web" and for its sidecars, such as "web-sidecar-proxy"`)
	policy.Rules = one + ` service "web-sidecar-proxy" { policy = "read" }`
	_, _, err = mesh.Client().ACL().PolicyUpdate(policy, nil)
	verify.NoError(t, err)
	r.await("a-sidecar-proxy")
}

func TestReadEntriesOfAPeer(t *testing.T) {
	const entry = `{"Node":{"Node":"n","Address":"10.0.0.1","Datacenter":"dc2"},"Service":{"ID":"w","Service":"web-sidecar-proxy","Kind":"connect-proxy","Port":1%s}}`
	for _, tt := range []struct{ connect, name, identity, unusable string }{
		{`,"Connect":{"PeerMeta":{"SNI":["web.default.default.east.external.td"],"SpiffeID":["spiffe://td/ns/default/dc/dc2/svc/web","spiffe://td/gateway/mesh/dc/dc2"],"Protocol":"http"}}`,
			"web.default.default.east.external.td", "spiffe://td/ns/default/dc/dc2/svc/web spiffe://td/gateway/mesh/dc/dc2", ""},
		{``, "", "", `the peer "east" does not say how it is reached through the mesh`},
		{`,"Connect":{"PeerMeta":{"SNI":[],"SpiffeID":["spiffe://td/x"]}}`, "", "", `the peer "east" does not say how it is reached through the mesh`},
		{`,"Connect":{"PeerMeta":{"SNI":["x"],"SpiffeID":["https://td/x"]}}`, "", "", `the peer "east" gives it an identity that is no SPIFFE URI`},
		{`,"Connect":{"PeerMeta":{"SNI":["x"],"SpiffeID":["spiffe://td/x","spiffe:///x"]}}`, "", "", `the peer "east" gives it an identity that is no SPIFFE URI`},
		{`,"Connect":{"PeerMeta":{"SNI":["x"],"SpiffeID":["%zz"]}}`, "", "", `the peer "east" gives it an identity that is no SPIFFE URI`},
	} {
		body := "[" + strings.Replace(entry, "%s", tt.connect, 1) + "]"
		entries := verify.Result(readEntries(strings.NewReader(body), "")).Must(t)
		set, skipped := instances(entries, &ServiceOptions{Service: "web", Connect: true, Peer: "east"})
		if tt.unusable != "" {
			verify.That(t, len(set) == 0 && len(skipped) == 1 && skipped[0].Reason == tt.unusable, "%s: %v, %v", tt.connect, set, skipped)
			continue
		}
		verify.Require(t, len(set) == 1, "%s: %v, %v", tt.connect, set, skipped)
		verify.That(t, set[0].Service == "web" && set[0].ServerName == tt.name && set[0].Identity == tt.identity, "%+v", set[0])
	}
	verify.Equal(t, identity("", "", "dc1", "web"), "/ns/default/dc/dc1/svc/web", "the identity")
	verify.Equal(t, identity("team", "other", "dc1", "web"), "/ap/other/ns/team/dc/dc1/svc/web", "the identity in a partition")
}
