package healthcheck

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"sluice/consul/mesh"
	"sluice/discovery"
	"sluice/discovery/locality"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// hiddenTLS hides from servers that their connections have TLS, as the built-in proxy does, which
// knows no ALPN.
type hiddenTLS struct{ net.Listener }

func (l hiddenTLS) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return struct{ net.Conn }{c}, err
}

// Every type of check is a member of the mesh: it checks who answers, for each instance anew, and
// needs no ALPN.
func TestChecksThroughTheMesh(t *testing.T) {
	const domain, path = "11111111-2222-3333-4444-555555555555.consul", "/ns/default/dc/dc1/svc/web"
	a := testcert.NewAuthority(t, domain)
	cert, key := a.Leaf(t, "/ns/default/dc/dc1/svc/sluice")
	identity := mesh.NewIdentity(mesh.IdentityOptions{Log: zerolog.Nop()})
	identity.Restore(&mesh.IdentityState{
		Leaf:  mesh.LeafText{CertPEM: string(cert), PrivateKeyPEM: string(key)},
		Roots: mesh.RootsText{TrustDomain: domain, Roots: []mesh.RootText{{RootCert: string(a.Root)}}},
	})
	calls := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(calls, health.NewServer())
	serve := func(member string) (address string) {
		l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
		protocols := new(http.Protocols)
		protocols.SetHTTP1(true)
		protocols.SetUnencryptedHTTP2(true)
		server := &http.Server{Protocols: protocols, ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Content-Type") == "application/grpc" {
				calls.ServeHTTP(w, r)
			}
		})}
		served := make(chan error, 1)
		go func() { served <- server.Serve(hiddenTLS{tls.NewListener(l, a.Member(t, member))}) }()
		t.Cleanup(func() {
			server.Close()
			<-served
		})
		return l.Addr().String()
	}
	right, wrong := serve(path), serve("/ns/default/dc/dc1/svc/api")
	for name, probe := range map[string]Probe{
		"http":  newHTTP(HTTPOptions{TLS: identity}),
		"http2": newHTTP2(HTTPOptions{TLS: identity}),
		"grpc":  NewGRPC(GRPCOptions{TLS: identity}),
		"tcp":   NewTCP(TCPOptions{TLS: identity}),
		// A mesh gateway has one address for many.
		"http, reused":  newHTTP(HTTPOptions{TLS: identity, Reuse: true}),
		"http2, reused": newHTTP2(HTTPOptions{TLS: identity, Reuse: true}),
		"grpc, reused":  NewGRPC(GRPCOptions{TLS: identity, Reuse: true}),
	} {
		checked := func(address, of string) string {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := probe.Check(ctx, Target{Address: address, Control: locality.ByOperator, Instance: discovery.Instance{Identity: of}}); err != nil {
				return err.Error()
			}
			return ""
		}
		for range 2 {
			verify.Equal(t, checked(right, path), "", "%s: web", name)
		}
		verify.Contains(t, checked(right, "/ns/default/dc/dc1/svc/api"), "/svc/web and not spiffe://", "%s: web in place of api, at the address of web", name)
		got := checked(wrong, path)
		verify.That(t, strings.Contains(got, "the peer is spiffe://"+domain+"/ns/default/dc/dc1/svc/api and not spiffe://"+domain+path), "%s: api in place of web: %q", name, got)
		verify.Equal(t, checked(wrong, "/ns/default/dc/dc1/svc/api"), "", "%s: api", name)
		verify.Contains(t, checked(right, ""), "it is not in the mesh", "%s: an instance outside of the mesh", name)
		probe.Close()
	}
}
