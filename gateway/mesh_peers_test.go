package gateway

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/balancer"
	"sluice/observe/wake"
	"sluice/test/consultest"
	"sluice/test/meshtest"
	"sluice/test/verify"
)

// Peers in the mesh are peers as others, with HTTP/1.1 and HTTP/2: requests do not fail while
// a sidecar stands still, is in maintenance or drained, and the certificates rotate.
func TestPeersOfTheMesh(t *testing.T) {
	t.Parallel()
	m := meshtest.Start(t, consultest.Options{ACLs: true, Node: "node-1"})
	var sidecars []*meshtest.Sidecar
	for _, id := range []string{"web-1", "web-2"} {
		sidecars = append(sidecars, m.Sidecar(t, meshtest.Service{Name: "web", ID: id, Port: meshtest.ServeHTTP(t, id).Port}))
	}
	m.Intend(t, "web", meshtest.Allow("sluice"))
	m.AwaitPassing(t, "web", 2)
	// Only what stands still for long fails a check.
	const more = `retry: { attempts: 3 }, timeouts: { connect: 5m }, health: { active: { interval: 100ms, failing_interval: 100ms, timeout: 5s, unhealthy_threshold: 1 } }`
	r := start(t, fmt.Sprintf(`
consul: { addresses: [%q], token: %s }
services:
  web: { consul: { connect: true }, %[3]s }
  multiplexed: { consul: { service: web, connect: true }, upstream: { protocol: h2 }, %[3]s }
routes: [{ services: { web: 50%%, multiplexed: 50%% } }]
`, m.URL(), m.Token(), more))
	await := func(id string, used bool) {
		t.Helper()
		r.await(fmt.Sprintf("%s is used: %t", id, used), func() bool {
			return !slices.ContainsFunc([]string{"web", "multiplexed"}, func(service string) bool {
				eligible := r.services.pool(service).Snapshot().Eligible
				return slices.ContainsFunc(eligible, func(p *balancer.Peer) bool { return p.Instance().ID == id }) != used
			})
		})
	}
	for _, s := range sidecars {
		await(s.ID+"-sidecar-proxy", true)
	}
	stop := r.load("web")
	s, proxy := sidecars[1], "web-2-sidecar-proxy"
	verify.NoError(t, s.Process().Pause())
	await(proxy, false)
	verify.NoError(t, s.Process().Resume())
	await(proxy, true)
	verify.NoError(t, m.Client().Agent().EnableServiceMaintenance(s.ID, "for a test"))
	await(proxy, false)
	verify.NoError(t, m.Client().Agent().DisableServiceMaintenance(s.ID))
	await(proxy, true)
	r.drain("web", proxy) // an order is about the instance, of which both services have a peer
	await(proxy, false)
	verify.Equal(t, r.command("/api/peers/web/"+proxy+"/enable"), http.StatusOK, "enable")
	await(proxy, true)
	before := r.mesh.identity.Certificates()[0]
	m.RotateCA(t)
	r.await("the next certificate", func() bool { return r.mesh.identity.Certificates()[0] != before })
	verify.That(t, stop() > 0, "no requests")
}

// Services that are found in the catalog of one mesh, and connections in it.
func TestServicesOfTheCatalogInTheMesh(t *testing.T) {
	t.Parallel()
	m := meshtest.Start(t, consultest.Options{ACLs: true})
	t.Run("found", func(t *testing.T) {
		t.Parallel()
		testServicesOfTheCatalogInTheMesh(t, m)
	})
	t.Run("streams", func(t *testing.T) {
		t.Parallel()
		testStreamsOfAServiceWithHTTP2InTheMesh(t, m)
	})
}

// Services found in the catalog are reached through the mesh, at the routes that the tags of their
// sidecars ask for; those outside of the mesh have no peers.
func testServicesOfTheCatalogInTheMesh(t *testing.T, m *meshtest.Mesh) {
	const tag = "sluice.route=web.example.com/"
	m.Sidecar(t, meshtest.Service{Name: "web", ID: "web-1", Port: meshtest.ServeHTTP(t, "web-1").Port, Tags: []string{tag}})
	m.Native(t, meshtest.Service{Name: "api", Tags: []string{"sluice.route=api.example.com/"}})
	for _, service := range []string{"web", "api"} {
		m.Intend(t, service, meshtest.Allow("sluice"))
		m.AwaitPassing(t, service, 1)
	}
	plain := &api.AgentServiceRegistration{Name: "plain", Address: "127.0.0.1", Port: meshtest.ServeHTTP(t, "plain").Port, Tags: []string{"sluice.route=plain.example.com/"}}
	verify.NoError(t, m.Client().Agent().ServiceRegister(plain))
	r := start(t, fmt.Sprintf("consul: { addresses: [%q], token: %s }\ncatalog: { tags: [sluice], connect: true }\n", m.URL(), m.Token()))
	r.answers("web.example.com/", "web-1")
	r.answers("api.example.com/", "api")
	r.await("plain has no peers", func() bool {
		pool := r.services.pool("plain")
		return pool != nil && wake.Closed(r.services.get("plain").first) && len(pool.Snapshot().All) == 0
	})
	verify.Slices(t, r.serviceNames(), []string{"api", "plain", "web"}, "services")
	for _, p := range r.peers() {
		verify.Equal(t, p.Identity, "/ns/default/dc/dc1/svc/"+p.Service, "the identity of a peer")
	}
}

// A listener for TCP connects to a service whose chain says HTTP/2: it forwards bytes as they are.
func testStreamsOfAServiceWithHTTP2InTheMesh(t *testing.T, m *meshtest.Mesh) {
	m.Sidecar(t, meshtest.Service{Name: "db", ID: "db-1", Port: meshtest.ServeTCP(t, "db-1").Port})
	m.Intend(t, "db", meshtest.Allow("sluice"))
	m.AwaitPassing(t, "db", 1)
	text := fmt.Sprintf(`
listeners: [{ name: db, address: "127.0.0.1:0", protocol: tcp, service: db }]
consul: { addresses: [%q], token: %s }
services: { db: { consul: { connect: true }, timeouts: { connect: 10s } } }
`, m.URL(), m.Token())
	r := start(t, text)
	first := r.connect("db")
	verify.Equal(t, first.line(), "db-1", "a connection")
	m.SetProtocol(t, "db", "grpc")
	r.await("the protocol is known", func() bool { return r.chain().Protocol == "grpc" })
	verify.Equal(t, r.connect("db").line(), "db-1", "a connection after the change")
	first.say("hello")
	verify.Equal(t, first.line(), "hello", "the connection of before")
	r = r.upgrade(text, nil)
	verify.Equal(t, r.connect("db").line(), "db-1", "a connection to a new peer")
}
