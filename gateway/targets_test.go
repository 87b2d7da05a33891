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
