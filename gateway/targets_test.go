package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/meshtest"
	"sluice/test/verify"
)

// A chain fails over to another data centre, through its mesh gateways, through those of the own
// one, and directly. No request fails, and only an instance of the service is behind a gateway.
func TestTargetsInOtherDatacenters(t *testing.T) {
	t.Parallel()
	connect := map[string]any{"enabled": true}
	one := meshtest.Start(t, consultest.Options{Node: "node-1", WAN: true, Config: map[string]any{"connect": connect, "primary_datacenter": "dc1"}})
	two := meshtest.Start(t, consultest.Options{Node: "node-2", WAN: true, Datacenter: "dc2", Config: map[string]any{
		"connect": connect, "primary_datacenter": "dc1", "retry_join_wan": []string{one.WANAddress()}, "retry_interval_wan": "1s",
	}})
	one.Native(t, meshtest.Service{Name: "web", ID: "web-1"})
	web2 := two.Native(t, meshtest.Service{Name: "web", ID: "web-2"})
	other := two.Native(t, meshtest.Service{Name: "other"})
	remote, local := two.Gateway(t, "mesh-gateway"), one.Gateway(t, "mesh-gateway")
	two.AwaitPassing(t, "web", 1)
	mode := func(mode api.MeshGatewayMode) {
		t.Helper()
		one.Write(t, &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "web", Protocol: "http", MeshGateway: api.MeshGatewayConfig{Mode: mode}})
	}
	mode(api.MeshGatewayModeRemote)
	one.Write(t, &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web",
		Failover: map[string]api.ServiceResolverFailover{"*": {Datacenters: []string{"dc2"}}}})
	roots, _, err := one.Client().Connect().CARoots(nil)
	verify.NoError(t, err)
	name := "web.default.dc2.internal." + roots.TrustDomain
	local.Route(name, remote.Address)

	r := start(t, preamble+"consul: { addresses: ["+one.URL()+"] }\nservices: { web: { consul: { connect: true } } }\nroutes: [{ service: web }]\n")
	r.awaitPooled("web", "web=[mesh-gateway@web.dc2 web-1]")
	answers := func(want string) {
		t.Helper()
		r.await("the answers are of "+want, func() bool { _, body := r.get("/"); return body == want })
	}
	answers("web-1")
	agent := one.Client().Agent()
	remote.Route(name, other.Address)
	verify.NoError(t, agent.EnableServiceMaintenance("web-1", ""))
	r.await("another service behind the gateway is refused", func() bool { status, _ := r.get("/"); return status == http.StatusBadGateway })
	remote.Route(name, web2.Address)
	answers("web-2")
	verify.NoError(t, agent.DisableServiceMaintenance("web-1"))
	answers("web-1")

	stop := r.load("web")
	verify.NoError(t, agent.EnableServiceMaintenance("web-1", ""))
	answers("web-2")
	verify.That(t, remote.Connections() > 0 && local.Connections() == 0, "%d connections through the gateway of dc2, %d of dc1", remote.Connections(), local.Connections())
	peer := r.peer("mesh-gateway@web.dc2")
	verify.That(t, peer.Target == "web.dc2" && peer.ServerName == name && peer.Identity == "/ns/default/dc/dc2/svc/web", "peer %+v", peer)
	mode(api.MeshGatewayModeLocal)
	r.await("the gateway of dc1 is used", func() bool { return local.Connections() > 0 })
	mode(api.MeshGatewayModeNone)
	r.awaitPooled("web", "web=[web-1 web-2]")
	answers("web-2")
	mode(api.MeshGatewayModeRemote)
	r.awaitPooled("web", "web=[mesh-gateway@web.dc2 web-1]")
	verify.NoError(t, agent.DisableServiceMaintenance("web-1"))
	answers("web-1")
	verify.NoError(t, two.Kill())
	answers("web-1")
	verify.That(t, stop() > 0, "no request was sent")
}

// serveAs serves the name of an instance with the certificate that a service has in a mesh, for any
// client with a certificate, as a sidecar of an exported service, which knows the roots of the
// importing clusters. It returns the address.
func serveAs(t *testing.T, m *meshtest.Mesh, service, id string) string {
	t.Helper()
	identity := m.Identity(t, service)
	l := verify.Result(consultest.Listen()).Must(t)
	server := &http.Server{Handler: meshtest.Handler(id), TLSConfig: &tls.Config{
		ClientAuth:     tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return identity.Leaf(), nil },
	}}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(l, "", "") }()
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
	return l.Addr().String()
}

// A service of a peered cluster stands in for the own one, verified with the roots of that cluster.
func TestPeeredClusters(t *testing.T) {
	t.Parallel()
	west, east := meshtest.Start(t, consultest.Options{Node: "west"}), meshtest.Start(t, consultest.Options{Node: "east"})
	west.Native(t, meshtest.Service{Name: "web", ID: "web-west"})
	address := serveAs(t, east, "web", "web-east")
	_, port, _ := net.SplitHostPort(address)
	verify.NoError(t, east.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: "web", Connect: &api.AgentServiceConnect{SidecarService: &api.AgentServiceRegistration{}},
	}))
	gateway := east.Gateway(t, "mesh-gateway")
	consultest.Peer(t, west.Agent, east.Agent)
	east.Write(t, &api.ExportedServicesConfigEntry{Name: "default", Services: []api.ExportedService{
		{Name: "web", Consumers: []api.ServiceConsumer{{Peer: "west"}}},
	}})
	west.Write(t, &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web",
		Failover: map[string]api.ServiceResolverFailover{"*": {Targets: []api.ServiceResolverFailoverTarget{{Peer: "east"}}}}})
	gateway.Route(peerName(t, east), net.JoinHostPort("127.0.0.1", port))

	text := preamble + "consul: { addresses: [" + west.URL() + "]%s }\nservices: { web: { consul: { connect: true } }, east: { consul: { service: web, connect: true, peer: east } } }\n" +
		"routes: [{ service: web }, { path: /east, service: east }]\n"
	r := start(t, fmt.Sprintf(text, ""))
	r.awaitPooled("web", "web=[web-sidecar-proxy-instance-0 web-west]")
	r.awaitPooled("east", "east=[web-sidecar-proxy-instance-0]")
	r.await("an own instance answers", func() bool { _, body := r.get("/"); return body == "web-west" })
	status, _ := r.get("/east")
	verify.Equal(t, status, http.StatusBadGateway, "status of the service that only the peer has")
	verify.NoError(t, west.Client().Agent().EnableServiceMaintenance("web-west", ""))
	r.await("without the roots no connection is made", func() bool { status, _ := r.get("/"); return status == http.StatusBadGateway })
	verify.Equal(t, gateway.Connections(), 0, "connections through the gateway")
	r.awaitLog("set consul.connect.peers.east.ca")

	file := filepath.Join(t.TempDir(), "east.pem")
	verify.NoError(t, os.WriteFile(file, []byte(rootsOf(t, east)), 0o600))
	r.replace(fmt.Sprintf(text, fmt.Sprintf(", connect: { peers: { east: { ca: %q } } }", file)))
	r.await("an instance of the peer answers", func() bool { _, body := r.get("/"); return body == "web-east" })
	r.await("an instance of the service that only the peer has answers", func() bool { _, body := r.get("/east"); return body == "web-east" })
	verify.That(t, gateway.Connections() > 0, "not through the gateway")
	verify.Equal(t, r.certificates()[file].State, "valid", "state of the roots")
}

// peerName returns the name by which east's gateway knows web, exported to west.
func peerName(t *testing.T, east *meshtest.Mesh) string {
	t.Helper()
	roots, _, err := east.Client().Connect().CARoots(nil)
	verify.NoError(t, err)
	return "web.default.default.west.external." + roots.TrustDomain
}

// rootsOf returns the roots of a mesh in PEM format.
func rootsOf(t *testing.T, m *meshtest.Mesh) string {
	t.Helper()
	list, _, err := m.Client().Connect().CARoots(nil)
	verify.NoError(t, err)
	var all strings.Builder
	for _, root := range list.Roots {
		verify.That(t, x509.NewCertPool().AppendCertsFromPEM([]byte(root.RootCertPEM)), "a root")
		all.WriteString(root.RootCertPEM)
	}
	return all.String()
}
