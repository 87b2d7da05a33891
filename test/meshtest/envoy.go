package meshtest

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// Envoy registers s with a check that always passes, and with a server until t ends that behaves as
// an Envoy sidecar that Consul has configured, for a service with a protocol:
//
//   - "tcp": no ALPN; a client that the intentions deny completes the handshake, and its connection
//     ends then (network RBAC). Others have what ServeTCP serves.
//   - "http": ALPN http/1.1; without it also HTTP/2 with prior knowledge. A request that the
//     intentions deny is answered 403 "RBAC: access denied", by a permission or not (HTTP RBAC).
//     Others get to Handler(s.ID).
//
// Sources: makeInboundListener and getAlpnProtocols in agent/xds/listeners.go of Consul 1.22, and
// Envoy's RBAC filters. It reads the intentions when it needs them, so a change counts for the next
// connection or request.
func (m *Mesh) Envoy(t testing.TB, s Service, protocol string) {
	t.Helper()
	l := verify.Result(consultest.Listen()).Must(t)
	identity := m.Identity(t, s.Name)
	switch protocol {
	case "tcp":
		config := identity.server()
		accept(t, l, func(c net.Conn) { m.serveTCP(tls.Server(c, config), s) })
	case "http":
		serveTLS(t, l, m.authorized(s.Name, Handler(s.id())), identity.server("http/1.1"))
	default:
		t.Fatalf("no Envoy for %q", protocol)
	}
	m.register(t, s, &api.AgentServiceConnect{SidecarService: &api.AgentServiceRegistration{
		Port: l.Addr().(*net.TCPAddr).Port, Address: "127.0.0.1",
		Checks: api.AgentServiceChecks{{Name: "alias", AliasService: s.id()}},
	}})
}

func (m *Mesh) serveTCP(c *tls.Conn, s Service) {
	defer c.Close()
	if c.HandshakeContext(context.Background()) == nil && m.allows(s.Name, sourceOf(c.ConnectionState()), nil) {
		echo(c, s.id())
	}
}

// authorized is HTTP RBAC before the handler of a service.
func (m *Mesh) authorized(service string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !m.allows(service, sourceOf(tlsOf(r)), r) {
			w.Header().Set("Server", "envoy")
			http.Error(w, "RBAC: access denied", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
