package meshtest

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// Envoy is a server that behaves as an Envoy sidecar that Consul has configured, for a service with
// a protocol:
//
//   - "tcp": no ALPN; a client that the intentions deny completes the handshake, and its connection ends then
//     (network RBAC);
//   - "http": ALPN http/1.1; "http2" and "grpc": h2 and http/1.1; without ALPN also HTTP/2 with prior knowledge. A
//     request that the intentions deny is answered 403 "RBAC: access denied", by a permission or not (HTTP RBAC).
//
// Sources: makeInboundListener and getAlpnProtocols in agent/xds/listeners.go of Consul 1.22, and
// Envoy's RBAC filters. It reads the intentions when it needs them, so a change counts for the next
// connection or request.
type Envoy struct {
	Service
	Address string

	mesh        *Mesh
	connections atomic.Int64
	requests    atomic.Int64
}

// Envoy registers s with a sidecar (see the type) and a check that always passes, and serves until
// t ends: Handler(s.ID), or connections as ServeTCP does.
func (m *Mesh) Envoy(t testing.TB, s Service, protocol string) *Envoy {
	t.Helper()
	l := verify.Result(consultest.Listen()).Must(t)
	e := &Envoy{Service: s, Address: l.Addr().String(), mesh: m}
	identity := m.Identity(t, s.Name)
	switch protocol {
	case "tcp":
		config := identity.server()
		accept(t, l, func(c net.Conn) { e.serveTCP(tls.Server(c, config)) })
	case "http":
		serveTLS(t, e.counted(l), e.authorized(Handler(s.id())), identity.server("http/1.1"))
	default:
		serveTLS(t, e.counted(l), e.authorized(Handler(s.id())), identity.server("h2", "http/1.1"))
	}
	m.register(t, s, &api.AgentServiceConnect{SidecarService: &api.AgentServiceRegistration{
		Port: l.Addr().(*net.TCPAddr).Port, Address: "127.0.0.1",
		Checks: api.AgentServiceChecks{{Name: "alias", AliasService: s.id()}},
	}})
	return e
}

// Connections returns how many connections it has accepted.
func (e *Envoy) Connections() int64 { return e.connections.Load() }

// Requests returns how many requests it has had, with those that it denied.
func (e *Envoy) Requests() int64 { return e.requests.Load() }

// counted counts connections.
func (e *Envoy) counted(l net.Listener) net.Listener { return countingListener{l, &e.connections} }

type countingListener struct {
	net.Listener
	n *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

func (e *Envoy) serveTCP(c *tls.Conn) {
	e.connections.Add(1)
	defer c.Close()
	if err := c.HandshakeContext(context.Background()); err != nil {
		return
	}
	if !e.mesh.allows(e.Name, sourceOf(c.ConnectionState()), nil) {
		return
	}
	echo(c, e.id())
}

// authorized is HTTP RBAC before a handler.
func (e *Envoy) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.requests.Add(1)
		if !e.mesh.allows(e.Name, sourceOf(tlsOf(r)), r) {
			w.Header().Set("Server", "envoy")
			http.Error(w, "RBAC: access denied", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
