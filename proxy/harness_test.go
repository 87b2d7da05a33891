package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/discovery"
	"sluice/proxy/http1"
	"sluice/proxy/socket"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/test/balancertest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// The harness of these tests: a testProxy between clients and peers. startProxy and those that
// begin so start one, set… and usePeers change what it does, expect… check what is left.
// harness_clients_test.go has the clients: bytes, and the fronts of all protocols.
// harness_peers_test.go has the peers: an origin with its handlers, and servers of net/http.
// harness_http2_test.go has clients and peers of HTTP/2 that send single frames;
// http3_client_test.go has such clients of HTTP/3.

// patience bounds every wait of these tests: far more than any step takes, also
// on a machine that stands still at times.
const patience = 2 * time.Minute

// nowhere are addresses where nobody listens: not even by chance, as these ports
// are given to nobody who does not ask for them.
var nowhere = []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}

// A testProxy is a real server on a loopback port in front of given peers.
type testProxy struct {
	*Server
	t       testing.TB
	pool    *balancer.Pool
	service *route.Service
	address string
	http2   bool // the peers use HTTP/2
}

// listen returns a listener on a loopback port, for the caller to close.
func listen(t testing.TB) net.Listener {
	t.Helper()
	return verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
}

// startProxy serves every request from the peers at addresses, until the test
// ends.
func startProxy(t testing.TB, o Options, addresses ...string) *testProxy {
	t.Helper()
	p := newUnmanagedProxy(t, o, addresses...)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		verify.Succeeds(t, p.Shutdown(ctx, 0))
		p.pool.Close()
		verify.Equal(t, p.inflight(), 0, "in flight at the end")
	})
	return p
}

// newUnmanagedProxy is startProxy for a test that ends the server itself.
func newUnmanagedProxy(t testing.TB, o Options, addresses ...string) *testProxy {
	t.Helper()
	p := &testProxy{Server: newTestServer(o), t: t}
	p.pool = balancer.NewPool("star", balancertest.Complete(balancer.Options{
		Policy: balancer.PolicyRoundRobin, NewTransport: p.NewTransport(transportOf(p.t)),
	}))
	p.setPeers(addresses...)
	p.setService(route.Service{Retry: route.Retry{Attempts: 3}})
	l := listen(t)
	p.address = l.Addr().String()
	served := make(chan error, 1)
	go func() {
		served <- p.Serve(context.Background(), l, ListenerOptions{Name: "test", TLS: serverTLS(t), HTTP2: true})
	}()
	t.Cleanup(func() {
		verify.Equal(t, <-served, ErrServerClosed, "serve")
	})
	return p
}

// serveWith serves another listener of p and returns its address.
func (p *testProxy) serveWith(o ListenerOptions) string {
	l, _ := p.serveUntil(o)
	return l.Addr().String()
}

// serveUntil serves another listener of p until leave is called, or the test ends.
func (p *testProxy) serveUntil(o ListenerOptions) (l net.Listener, leave func()) {
	p.t.Helper()
	l = listen(p.t)
	return l, p.serveOn(l, o)
}

// serveOn is serveUntil for a listener that there is, which it closes when the test ends.
func (p *testProxy) serveOn(l net.Listener, o ListenerOptions) (leave func()) {
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx, l, o) }()
	leave = sync.OnceFunc(func() { cancel(); <-served })
	p.t.Cleanup(func() { leave(); l.Close() })
	return leave
}

// change changes options of p.
func (p *testProxy) change(edit func(o *Options)) {
	o := *p.options.Load()
	edit(&o)
	p.Configure(o)
}

// newTestServer returns a server with o and what a test leaves to it.
func newTestServer(o Options) *Server {
	t, l := &o.Timeouts, &o.Limits
	t.Head, t.Body = cmp.Or(t.Head, 10*time.Second), cmp.Or(t.Body, 30*time.Second)
	t.Write, t.Idle = cmp.Or(t.Write, time.Minute), cmp.Or(t.Idle, time.Minute)
	l.Connections = cmp.Or(l.Connections, HalfOfDescriptors())
	l.ConnectionsPerAddress = cmp.Or(l.ConnectionsPerAddress, l.Connections)
	l.TargetBytes, l.HeadBytes, l.Fields = cmp.Or(l.TargetBytes, 8<<10), cmp.Or(l.HeadBytes, 16<<10), cmp.Or(l.Fields, http1.UsualFields)
	l.KeptBodyBytes, l.StreamBytes = cmp.Or(l.KeptBodyBytes, 1<<30), cmp.Or(l.StreamBytes, 1<<30)
	return NewServer(o, zerolog.Nop())
}

// someTransport keeps connections for longer than a machine stands still.
var someTransport = upstream.Options{
	Keepalive:      upstream.Keepalive{IdleTimeout: 30 * time.Second, MaxIdle: 512},
	ResponseLimits: upstream.ResponseLimits{HeadBytes: 16 << 10, Fields: http1.UsualFields},
}

// defaultTimeouts are those of services, but for connecting and the response header: a
// machine that stands still is no peer that cannot be connected to, or does not answer.
func defaultTimeouts() route.Timeouts {
	return route.Timeouts{Connect: patience, ResponseHeader: patience, Idle: time.Minute, Tunnel: time.Hour}
}

// inflight returns how many requests are in flight, at peers that drain too.
func (p *testProxy) inflight() int { return inflightIn(p.pool) }

// inflightIn is inflight for another pool.
func inflightIn(pool *balancer.Pool) (n int) {
	snapshot := pool.Snapshot()
	for _, peer := range slices.Concat(snapshot.All, snapshot.Draining) {
		n += peer.Inflight()
	}
	return n
}

// expectNothingCounted checks that no attempt speaks against a peer. All of them
// must have ended.
func (p *testProxy) expectNothingCounted() {
	p.t.Helper()
	for _, peer := range p.pool.Snapshot().All {
		for class, n := range peer.Outcomes() {
			if class := balancer.OutcomeClass(class); n > 0 && class.Failure() {
				p.t.Errorf("%d times %q is counted against %s", n, class, peer.Address())
			}
		}
	}
}

// eventually waits until condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("waited in vain for: %s\n%s", what, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// sweptFor waits until the sweeper has looked at the connections for that long,
// so that it would have done by then what it does after that time.
func (p *testProxy) sweptFor(d time.Duration) {
	p.t.Helper()
	start := p.sweeper.Now()
	eventually(p.t, "the sweeper's clock goes on", func() bool { return p.sweeper.Now()-start >= int64(d) })
}

// skip lets d pass on the sweeper's clock, and the sweeper act on it.
func (p *testProxy) skip(d time.Duration) {
	p.t.Helper()
	p.sweeper.Advance(d)
	p.sweptFor(2 * socket.SweepInterval)
}

// setPeers gives the pool peers at these addresses, and no others.
func (p *testProxy) setPeers(addresses ...string) {
	p.t.Helper()
	p.pool.Apply(instancesAt(p.t, addresses...))
}

// instancesAt returns an instance for each address, whose id it is.
func instancesAt(t testing.TB, addresses ...string) (set []discovery.Instance) {
	t.Helper()
	for _, a := range addresses {
		at := verify.Result(netip.ParseAddrPort(a)).Must(t)
		set = append(set, discovery.Instance{Service: "star", ID: a, Address: at.Addr().String(), Port: int(at.Port()), Tags: []string{a}, Weight: 1})
	}
	return set
}

// newService returns another service, with a pool of its own that has peers at these addresses.
func (p *testProxy) newService(name string, o balancer.Options, addresses ...string) *route.Service {
	p.t.Helper()
	pool := balancer.NewPool(name, balancertest.Complete(o))
	p.t.Cleanup(pool.Close)
	pool.Apply(instancesAt(p.t, addresses...))
	return &route.Service{Name: name, Pool: pool, Timeouts: defaultTimeouts(), Retry: route.Retry{Attempts: 1}}
}

// setService routes all requests to the service s, in which timeouts that are 0 are the
// defaultTimeouts.
func (p *testProxy) setService(s route.Service) {
	p.t.Helper()
	t, usual := &s.Timeouts, defaultTimeouts()
	t.Connect, t.ResponseHeader = cmp.Or(t.Connect, usual.Connect), cmp.Or(t.ResponseHeader, usual.ResponseHeader)
	t.Idle, t.Tunnel = cmp.Or(t.Idle, usual.Idle), cmp.Or(t.Tunnel, usual.Tunnel)
	s.Name, s.Pool, s.HTTP2 = "star", p.pool, p.http2
	p.service = &s
	table := verify.Result(route.NewTable([]route.Route{{Path: "/", Service: p.service}})).Must(p.t)
	p.SetTable(table, nil)
}

// reconfigure gives the pool other options; without NewTransport the usual one.
func (p *testProxy) reconfigure(o balancer.Options) {
	p.t.Helper()
	if o.NewTransport == nil {
		o.NewTransport = p.NewTransport(transportOf(p.t))
	}
	p.pool.Reconfigure(balancertest.Complete(o))
}

// usePeers makes the peers of p those at addresses, by HTTP/2 or HTTP/1.1, in a pool with these
// options.
func (p *testProxy) usePeers(http2 bool, o upstream.Options, pool balancer.Options, addresses ...string) {
	p.t.Helper()
	p.http2, pool.NewTransport = http2, p.NewTransport(o)
	p.reconfigure(pool)
	p.setPeers(addresses...)
	p.setService(*p.service)
}

// startProxyTo serves every request from a peer by HTTP/2 or HTTP/1.1 that answers by handler.
func startProxyTo(t testing.TB, http2 bool, o Options, handler http.HandlerFunc) *testProxy {
	t.Helper()
	p := startProxy(t, o)
	p.usePeers(http2, someTransport, balancer.Options{Policy: balancer.PolicyRoundRobin}, startServer(t, handler))
	return p
}

// shutDown begins to shut the server down, and waits until it accepts no connection.
func (p *testProxy) shutDown(ctx context.Context, grace time.Duration) (ended <-chan error) {
	result := make(chan error, 1)
	go func() { result <- p.Shutdown(ctx, grace) }()
	eventually(p.t, "no new connections", func() bool { return !p.accepts() })
	return result
}

// accepts reports whether the server has a listener. The address of a former one may be another
// test's by now.
func (p *testProxy) accepts() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.listeners) > 0
}

// expectNothingOpen waits until no request is in flight and all connections of clients have ended.
func (p *testProxy) expectNothingOpen() {
	p.t.Helper()
	eventually(p.t, "nothing is open", func() bool { return p.inflight() == 0 && p.Connections() == 0 })
}

// looks is how long it takes until it has been looked more than once whether the
// client of an exchange is there.
const looks = 2 * (socket.FirstProbe + 250*time.Millisecond)

// setActions makes one route for all requests.
func (p *testProxy) setActions(a *route.Actions) {
	p.t.Helper()
	p.setRoutes(route.Route{Path: "/", Service: p.service, Actions: a})
}

// setRoutes makes these the routes of p.
func (p *testProxy) setRoutes(routes ...route.Route) {
	p.t.Helper()
	table := verify.Result(route.NewTable(routes)).Must(p.t)
	p.SetTable(table, nil)
}

// startProxyToH2C is startProxy for peers that speak HTTP/2.
func startProxyToH2C(t *testing.T, addresses ...string) *testProxy {
	t.Helper()
	p := startProxy(t, Options{})
	p.usePeers(true, someTransport, balancer.Options{Policy: balancer.PolicyRoundRobin, DrainTimeout: patience}, addresses...)
	p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 3}})
	return p
}

// startStreams is startProxy for connections that are forwarded as they are.
func startStreams(t testing.TB, o Options, addresses ...string) *testProxy {
	t.Helper()
	p := startProxy(t, o, addresses...)
	p.address = p.serveWith(ListenerOptions{Name: "db", Streams: p.target})
	return p
}

// target sends connections to the service that setService has set.
func (p *testProxy) target() *Streams {
	return &Streams{Other: p.routing.Load().Match([]byte("a"), []byte("/"), nil)}
}

// patientTimeouts do not come into play.
func patientTimeouts() route.Timeouts {
	return route.Timeouts{Connect: patience, ResponseHeader: patience, Idle: patience}
}

// eachConn calls do for each connection of a client.
func (p *testProxy) eachConn(do func(*clientConn)) {
	for _, c := range connections[*clientConn](p.Server) {
		do(c)
	}
}

// connections returns the open connections of one kind.
func connections[C connection](s *Server) (all []C) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if of, ok := c.(C); ok {
			all = append(all, of)
		}
	}
	return all
}

// onlyClient returns the connection of the only client.
func (p *testProxy) onlyClient() *clientConn {
	p.t.Helper()
	all := connections[*clientConn](p.Server)
	verify.Require(p.t, len(all) == 1, "%d connections", len(all))
	return all[0]
}

// onlyHTTP2Client is onlyClient after the client has sent by HTTP/2.
func (p *testProxy) onlyHTTP2Client() *http2ClientConn {
	p.t.Helper()
	c := p.onlyClient()
	c.client.Entry.Deadline.Load() // the race detector sees no order in bytes of a socket
	return c.http2
}

// onlyConnector returns the connector of the only peer.
func (p *testProxy) onlyConnector() upstream.Connector {
	return p.pool.Snapshot().All[0].Transport.(upstream.Connector)
}

// peerConnections returns how many connections to the peers are open.
func (p *testProxy) peerConnections() (n int) {
	for _, peer := range p.pool.Snapshot().All {
		idle, busy := peer.Transport.(upstream.Connector).Connections()
		n += idle + busy
	}
	return n
}

// peersAreIdle reports whether no exchange holds a connection, or a stream of one.
func (p *testProxy) peersAreIdle() bool {
	for _, peer := range p.pool.Snapshot().All {
		if _, busy := peer.Transport.(upstream.Connector).Connections(); busy != 0 {
			return false
		}
	}
	return true
}

// expectNothingLeft waits until a proxy without clients holds nothing any more.
func (p *testProxy) expectNothingLeft(t testing.TB, goroutines int) {
	t.Helper()
	eventually(t, "all connections of clients have ended", func() bool { return p.Connections() == 0 && p.admission.total() == 0 })
	eventually(t, "no attempt is in flight", func() bool { return p.inflight() == 0 })
	eventually(t, "the encoders are back", func() bool { return p.Compression().InUseBytes == 0 })
	eventually(t, "the memory of bodies is back", func() bool { return p.keptBodies.Taken() == 0 })
	if goroutines > 0 {
		eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	}
}

// certificate is of a listener in tests, whose clients do not check it.
var certificate = sync.OnceValue(func() tls.Certificate {
	pair, err := tls.X509KeyPair(testcert.PEM("localhost"))
	if err != nil {
		panic(err)
	}
	return pair
})

// overTLS reports whether the listeners of a test speak TLS, and its clients:
// those of tests whose name begins so.
func overTLS(t testing.TB) bool { return strings.HasPrefix(t.Name(), "TestOverTLS") }

// serverTLS is the configuration of the test's listeners, or nil.
func serverTLS(t testing.TB) *tls.Config {
	if !overTLS(t) {
		return nil
	}
	return &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"http/1.1"}}
}

// peersOverTLS reports whether the origins of a test speak TLS: those of tests whose
// name begins so.
func peersOverTLS(t testing.TB) bool { return strings.HasPrefix(t.Name(), "TestPeersOverTLS") }

// transportOf returns someTransport, with TLS if the origins of the test speak it.
func transportOf(t testing.TB) upstream.Options {
	o := someTransport
	if peersOverTLS(t) {
		o.TLS = anyCertificate
	}
	return o
}

// anyCertificate are TLS settings that accept every peer.
func anyCertificate(bool) certificates.Security { return acceptsAll() }

var acceptsAll = sync.OnceValue(func() certificates.Security {
	c, err := certificates.NewClient(certificates.ClientOptions{ClientTLS: certificates.ClientTLS{SkipVerify: true}})
	if err != nil {
		panic(err)
	}
	return c
})
