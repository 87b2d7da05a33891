package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/consul/mesh"
	"sluice/discovery/locality"
	"sluice/test/configtest"
	"sluice/test/consultest"
	"sluice/test/meshtest"
	"sluice/test/verify"
)

// Services in the mesh have requests when sluice has a certificate. What lacks is said, and heals;
// an upgrade needs no Consul; a rotation ends no request.
func TestServicesOfTheMesh(t *testing.T) {
	t.Parallel()
	m := meshtest.Start(t, consultest.Options{ACLs: true, Mode: consultest.Server})
	m.Sidecar(t, meshtest.Service{Name: "web", ID: "web-1", Port: meshtest.ServeHTTP(t, "web-1").Port})
	m.Native(t, meshtest.Service{Name: "api"})
	for _, service := range []string{"web", "api"} {
		m.Intend(t, service, meshtest.Allow("edge"))
		m.AwaitPassing(t, service, 1)
	}
	const readable = `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`
	policy, token, err := m.NewToken("edge", readable)
	verify.NoError(t, err)
	text := fmt.Sprintf(`
consul: { addresses: [%q], token: %s, connect: { service: edge } }
services:
  web: { consul: { connect: true } }
  api: { consul: { connect: true }, upstream: { protocol: h2 }, health: { active: { type: grpc } } }
  plain: { peers: [%q] }
routes: [{ path: /web, service: web }, { path: /api, service: api }, { service: plain }]
`, m.URL(), token.SecretID, strings.TrimPrefix(origin(t, "plain"), "http://"))
	r := start(t, text, func(g *Gateway) { g.waits.start, g.waits.warm = 0, time.Second })
	r.gets("/", "plain")
	r.await("the missing right is named", func() bool {
		_, v := r.readyz()
		return strings.Contains(strings.Join(v.Missing, "\n"), `mesh: no certificate of the mesh for service "edge" yet`) &&
			strings.Contains(strings.Join(v.Missing, "\n"), `lacks service:write: service "edge" { policy = "write" }`)
	})
	verify.Equal(t, r.certificates()["mesh:edge"].State, "missing", "state of the certificate")
	verify.Contains(t, r.text("/metrics"), `sluice_mesh_identity_usable{service="edge"} 0`, "metrics")
	r.await("the answer names the certificate", func() bool { // before, the discovery chain is not known
		status, body := r.get("/web")
		verify.Equal(t, status, http.StatusServiceUnavailable, "status without a certificate")
		return strings.Contains(body, "certificate of Consul's service mesh")
	})

	policy.Rules += ` service "edge" { policy = "write" }`
	_, _, err = m.Client().ACL().PolicyUpdate(policy, nil)
	verify.NoError(t, err)
	answers := func(r *running, when string) {
		t.Helper()
		r.await(when, func() bool {
			status, body := r.get("/web")
			status2, body2 := r.get("/api")
			return status == http.StatusOK && body == "web-1" && status2 == http.StatusOK && body2 == "api"
		})
	}
	answers(r, "both answer")
	r.await("nothing is missing", func() bool { status, v := r.readyz(); return status == http.StatusOK && len(v.Missing) == 0 })
	verify.Equal(t, r.certificates()["mesh:edge"].State, "valid", "state of the certificate")

	m.RotateCA(t)
	r.gets("/web", "web-1", "after a rotation")
	r.gets("/api", "api", "after a rotation")
	verify.NoError(t, m.Stop())
	before := r.mesh.identity.Current()
	next := r.upgrade(text, nil)
	verify.Equal(t, next.mesh.identity.Current().URI(), before.URI(), "the identity in the new process")
	verify.NoError(t, m.Launch(t.Context()))
	m.AwaitPassing(t, "web", 1)
	answers(next, "both answer")

	next.replace(strings.ReplaceAll(strings.ReplaceAll(text, "{ connect: true }", "{}"), "protocol: h2", "protocol: h2c"))
	next.await("no certificate is left", func() bool { return next.mesh.identity.Current() == nil })
	_, listed := next.certificates()["mesh:edge"]
	verify.That(t, !listed, "the certificate is still listed")
}

// A reload that needs the mesh no longer leaves the certificate of sluice to the peers in the mesh
// that are still there: the former instances of a service whose new source has no set yet, and
// those of a removed one for late requests.
func TestTheMeshIsLeftWithItsLastPeer(t *testing.T) {
	t.Parallel()
	in := configtest.Must(t, "consul: { addresses: ['127.0.0.1:1'] }\nservices: { web: { consul: { connect: true } } }\nroutes: [{ service: web }]")
	out := configtest.Must(t, "consul: { addresses: ['127.0.0.1:1'] }\nservices: { web: { consul: {} } }\nroutes: [{ service: web }]")
	r := verify.Result(newRegistries(func() *config.Config { return in }, locality.New(), nil, zerolog.Nop())).Must(t)
	present := []mesh.Destination{{Service: "web"}}
	m := newMembership(r, func() []mesh.Destination { return present }, func(mesh.Destination) {}, nil, zerolog.Nop())
	t.Cleanup(func() {
		m.identity.Pause()
		m.intentions.Pause()
		r.consul.Close()
	})
	m.join(in)
	m.leave(out)
	verify.Equal(t, m.identity.Service(), "sluice", "the name in the mesh while there is a peer in it")
	m.leaveAtLast()
	verify.Equal(t, m.identity.Service(), "sluice", "the name in the mesh later")
	present = nil
	m.leaveAtLast()
	verify.Equal(t, m.identity.Service(), "", "the name in the mesh after the last peer")
	m.join(in)
	m.leaveAtLast()
	verify.Equal(t, m.identity.Service(), "sluice", "the name in the mesh after it was joined again")
}
