package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/consul/mesh"
	"sluice/discovery"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/test/subprocess"
	"sluice/test/testcert"
	"sluice/test/verify"
)

const (
	trustDomain = "11111111-2222-3333-4444-555555555555.consul"
	webIdentity = "/ns/default/dc/dc1/svc/web"
)

// memberOf returns a new identity of sluice in the mesh of an authority, which verifies with its
// root and those of others.
func memberOf(t testing.TB, a *testcert.Authority, others ...*testcert.Authority) *mesh.Identity {
	t.Helper()
	i := mesh.NewIdentity(mesh.IdentityOptions{Log: zerolog.Nop()})
	begin(t, i, a, others...)
	verify.Require(t, i.Current() != nil, "the identity is not in use")
	return i
}

// begin gives an identity a new certificate of an authority, and roots.
func begin(t testing.TB, i *mesh.Identity, a *testcert.Authority, others ...*testcert.Authority) {
	t.Helper()
	cert, key := a.Leaf(t, "/ns/default/dc/dc1/svc/sluice")
	roots := mesh.RootsText{TrustDomain: a.Domain}
	for _, of := range append(others, a) {
		roots.Roots = append(roots.Roots, mesh.RootText{RootCert: string(of.Root)})
	}
	i.Restore(&mesh.IdentityState{Leaf: mesh.LeafText{CertPEM: string(cert), PrivateKeyPEM: string(key)}, Roots: roots})
}

// inMesh makes p reach its peers as a member of the mesh, at these addresses, each of which must be
// web. said gets the log about them.
func (p *testProxy) inMesh(http2 bool, identity *mesh.Identity, said io.Writer, addresses ...string) {
	p.t.Helper()
	o, connectors := someTransport, upstream.NewConnectors(p.sweeper, zerolog.New(said))
	o.TLS = func(bool) certificates.Security { return identity }
	pool := balancer.Options{Policy: balancer.PolicyRoundRobin, DrainTimeout: patience, NewTransport: connectors.NewTransport(o)}
	p.http2 = http2
	p.reconfigure(pool)
	set := instancesAt(p.t, addresses...)
	for n := range set {
		set[n].Identity, set[n].ServerName = webIdentity, "web.default.dc1.internal."+trustDomain
	}
	p.pool.Apply(set)
	p.setService(route.Service{})
}

// serveMember serves until t ends, by HTTP/1.1 and by HTTP/2 with prior knowledge: ALPN is in
// config only.
func serveMember(t testing.TB, config *tls.Config, answer http.HandlerFunc) (address string) {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: protocols, ErrorLog: log.New(io.Discard, "", 0), Handler: answer}
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- server.Serve(plainListener{tls.NewListener(l, config)}) }()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	return l.Addr().String()
}

func answerProtocol(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }

// plainListener hides TLS from net/http, which would take HTTP/2 by ALPN only.
type plainListener struct{ net.Listener }

func (l plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return struct{ net.Conn }{c}, err
}

// Only the right member of the mesh gets requests, whatever it speaks. A wrong one is a failure to
// connect that names who was expected and who has answered. TestPeersAreVerified of package mesh
// has all of them.
func TestOnlyTheRightMemberOfTheMeshIsAPeer(t *testing.T) {
	t.Parallel()
	a, stranger := testcert.NewAuthority(t, trustDomain), testcert.NewAuthority(t, trustDomain)
	const spiffe, api = "spiffe://" + trustDomain, "/ns/default/dc/dc1/svc/api"
	for _, test := range []struct {
		name   string
		config *tls.Config
		want   string // in the log; "": it is the right one
	}{
		{"the right one", a.Member(t, webIdentity), ""},
		{"with ALPN", withALPN(a.Member(t, webIdentity)), ""},
		{"another service", a.Member(t, api), "the peer is " + spiffe + api + " and not " + spiffe + webIdentity},
		{"another root", stranger.Member(t, webIdentity), "unknown authority"},
		{"not yet valid", a.Member(t, webIdentity, testcert.Lasting(time.Hour, 2*time.Hour)), "expired or is not yet valid"},
	} {
		for _, http2 := range []bool{false, true} {
			t.Run(test.name+map[bool]string{true: ", h2"}[http2], func(t *testing.T) {
				said := new(subprocess.Output)
				p := startProxy(t, Options{})
				p.inMesh(http2, memberOf(t, a), said, serveMember(t, test.config, answerProtocol))
				answer := p.raw(closingRequest)
				failures := p.pool.Snapshot().All[0].Outcomes()[balancer.OutcomeConnectFailure]
				if test.want == "" {
					verify.Contains(t, answer, "HTTP/1.1 200 ", "the answer")
					verify.Contains(t, answer, map[bool]string{false: "\nHTTP/1.1", true: "\nHTTP/2.0"}[http2], "the protocol")
					verify.Equal(t, failures, 0, "failures")
					return
				}
				verify.Contains(t, answer, "upstream_tls_failed", "the answer")
				verify.That(t, failures == 1, "%d connect failures", failures)
				verify.Contains(t, said.String(), test.want, "the log")
			})
		}
	}
}

// withALPN returns config with the protocols of Envoy.
func withALPN(config *tls.Config) *tls.Config {
	config.NextProtos = []string{"h2", "http/1.1"}
	return config
}

// A new certificate and new roots count for new connections, each of which is verified. Open ones
// go on, with what is on them, and idle ones are used again.
func TestConnectionsOutliveARotationOfTheMesh(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		before, after := testcert.NewAuthority(t, trustDomain), testcert.NewAuthority(t, trustDomain)
		var handshakes, resumed atomic.Int64
		var last atomic.Pointer[x509.Certificate] // of sluice
		both := func(a *testcert.Authority) *tls.Config {
			config := a.Member(t, webIdentity)
			config.ClientAuth = tls.RequireAnyClientCert
			config.VerifyConnection = func(s tls.ConnectionState) error {
				handshakes.Add(1)
				if last.Store(s.PeerCertificates[0]); s.DidResume {
					resumed.Add(1)
				}
				return nil
			}
			return config
		}
		var config atomic.Pointer[tls.Config] // of the peer
		config.Store(both(before))
		goOn := make(chan struct{})
		address := serveMember(t, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return config.Load(), nil }},
			func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/long" {
					w.(http.Flusher).Flush()
					<-goOn
				}
				io.WriteString(w, "ok")
			})
		p, identity := startProxy(t, Options{}), memberOf(t, before)
		p.inMesh(http2, identity, io.Discard, address)
		p.expect(closingRequest, "200")
		one := last.Load()
		begin(t, identity, after, before)
		p.expect(closingRequest, "200")
		verify.Equal(t, handshakes.Load(), 1, "handshakes: the idle connection is used again")
		long := p.send("GET /long HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		expectNext(t, long, "HTTP/1.1 200")

		config.Store(both(after))
		begin(t, identity, after) // without the old root
		p.pool.Snapshot().All[0].Transport.Drain()
		p.expect(closingRequest, "200")
		verify.That(t, handshakes.Load() == 2 && resumed.Load() == 0 && !last.Load().Equal(one), "%d handshakes, %d resumed, want 2 and 0, with another certificate", handshakes.Load(), resumed.Load())
		close(goOn)
		rest := verify.Result(io.ReadAll(long)).Must(t)
		verify.Contains(t, string(rest), "ok", "the rest of the long answer")
		p.expectNothingCounted()
	}
}

// A connection to who has answered before is not used for a request to somebody else: an instance
// becomes another service's at the same address, with the same id, as after a redirect of a
// service-resolver.
func TestConnectionsAreForOneIdentity(t *testing.T) {
	t.Parallel()
	a := testcert.NewAuthority(t, trustDomain)
	for _, http2 := range []bool{false, true} {
		p, said := startProxy(t, Options{}), new(subprocess.Output)
		p.inMesh(http2, memberOf(t, a), said, serveMember(t, a.Member(t, webIdentity), answerProtocol))
		p.expect(closingRequest, "200")
		instance := p.pool.Snapshot().All[0].Instance()
		for _, change := range []func(*discovery.Instance){
			func(i *discovery.Instance) { i.Identity = "/ns/default/dc/dc1/svc/api" },
			func(i *discovery.Instance) { i.Peer, i.Identity = "east", "spiffe://"+trustDomain+webIdentity },
		} {
			changed := instance
			change(&changed)
			p.pool.Apply([]discovery.Instance{changed})
			answer := p.raw(closingRequest)
			verify.Contains(t, answer, "upstream_tls_failed", "the answer, HTTP/2 %v, as %s", http2, changed.Identity)
			p.pool.Apply([]discovery.Instance{instance})
			p.expect(closingRequest, "200")
		}
	}
}
