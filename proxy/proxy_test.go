package proxy

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/proxy/http1"
	"sluice/proxy/socket"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

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

func (p *testProxy) dial() net.Conn {
	p.t.Helper()
	conn := verify.Result(net.Dial("tcp", p.address)).Must(p.t)
	p.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return clientSide(p.t, conn)
}

// send sends text on a new connection.
func (p *testProxy) send(text string) net.Conn {
	p.t.Helper()
	conn := p.dial()
	io.WriteString(conn, text)
	return conn
}

// raw sends request on a new connection and returns all that comes back until
// the connection ends.
func (p *testProxy) raw(request string) string {
	p.t.Helper()
	conn := p.dial()
	verify.Result(io.WriteString(conn, request)).Must(p.t)
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// expect sends request on a new connection of its own, and checks that the answer has that status,
// which may go on with the head, and each of these parts.
func (p *testProxy) expect(request, status string, parts ...string) (answer string) {
	p.t.Helper()
	answer = p.raw(request)
	verify.That(p.t, strings.HasPrefix(answer, "HTTP/1.1 "+status+" "), "%q: got %q, want %s", request, answer, status)
	for _, part := range parts {
		verify.Contains(p.t, answer, part, "the answer to %q", request)
	}
	return answer
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

// An origin answers each request as its handler says and records the bytes it
// got.
type origin struct {
	t        testing.TB
	listener net.Listener
	handle   func(o *originConn) bool // reads a request and answers; false closes

	mu       sync.Mutex
	received bytes.Buffer
	accepted int
	ended    int
	conns    []net.Conn
	gone     bool
}

type originConn struct {
	net.Conn
	*bufio.Reader
	origin *origin
	number int  // of the connection, from 1
	served int  // requests on it before this one
	last   bool // it was used for its last request
}

func (c *originConn) Read(b []byte) (int, error) { return c.Reader.Read(b) }

// Write notes what was read from a connection.
func (o *origin) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.received.Write(b)
}

func startOrigin(t testing.TB, handle func(o *originConn) bool) *origin {
	t.Helper()
	l := listen(t)
	o := &origin{t: t, listener: l, handle: handle}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn = originSide(t, conn)
			o.mu.Lock()
			if o.gone {
				conn.Close()
			}
			o.accepted++
			o.conns = append(o.conns, conn)
			c := &originConn{Conn: conn, Reader: bufio.NewReader(io.TeeReader(conn, o)), origin: o, number: o.accepted}
			o.mu.Unlock()
			wg.Go(func() {
				defer func() {
					conn.Close()
					o.mu.Lock()
					o.ended++
					o.mu.Unlock()
				}()
				for handle(c) {
					c.served++
				}
			})
		}
	})
	t.Cleanup(func() {
		o.close()
		wg.Wait()
	})
	return o
}

func (o *origin) close() {
	o.listener.Close()
	o.leave() // one may be accepted, and not in conns yet
}

// leave closes all connections, also those to come. Its address stays its own: another test would
// answer there.
func (o *origin) leave() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gone = true
	for _, c := range o.conns {
		c.Close()
	}
}

func (o *origin) address() string { return o.listener.Addr().String() }

func (o *origin) got() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.received.String()
}

// request reads a request with its body, which it drops.
func (c *originConn) request() (*http.Request, bool) {
	r, err := http.ReadRequest(c.Reader)
	if err != nil {
		return nil, false
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, false
	}
	return r, true
}

// afterRequest returns a handler that reads a request before it goes on.
func afterRequest(goOn func(*originConn) bool) func(*originConn) bool {
	return withRequest(func(c *originConn, _ *http.Request) bool { return goOn(c) })
}

// withRequest is afterRequest for one who asks what the request was.
func withRequest(goOn func(*originConn, *http.Request) bool) func(*originConn) bool {
	return func(c *originConn) bool {
		r, ok := c.request()
		return ok && goOn(c, r)
	}
}

// withHead is withRequest for one who reads the body, or leaves it.
func withHead(goOn func(*originConn, *http.Request) bool) func(*originConn) bool {
	return func(c *originConn) bool {
		r, err := http.ReadRequest(c.Reader)
		return err == nil && goOn(c, r)
	}
}

// write sends text. Whether it could is what a handler returns then.
func (c *originConn) write(text string) bool {
	_, err := io.WriteString(c.Conn, text)
	return err == nil
}

// answer answers with 200 and that body.
func (c *originConn) answer(body string) bool {
	return c.write(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
}

// returning answers each request with its body.
var returning = withHead(func(c *originConn, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	return err == nil && c.answer(string(body))
})

// answering returns a handler that gives the same answer to each request.
func answering(response string) func(*originConn) bool {
	return afterRequest(func(c *originConn) bool {
		return c.write(response)
	})
}

// answersOK starts a peer that answers each request with okResponse, and returns its address.
func answersOK(t testing.TB) (address string) { return startOrigin(t, answering(okResponse)).address() }

// A heldOrigin has all requests wait but those for /: it tells the target of each, and answers with
// okResponse when it may.
type heldOrigin struct {
	*origin
	arrived chan string
	proceed chan struct{}
}

const heldRequest = "GET /held HTTP/1.1\r\nHost: a\r\n\r\n"

func startHeldOrigin(t testing.TB) *heldOrigin {
	h := &heldOrigin{arrived: make(chan string), proceed: make(chan struct{})}
	ended := make(chan struct{})
	h.origin = startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
		if r.RequestURI == "/" {
			return c.write(okResponse)
		}
		select {
		case h.arrived <- r.RequestURI:
		case <-ended:
			return false
		}
		select {
		case <-h.proceed:
		case <-ended:
		}
		return c.write(okResponse)
	}))
	t.Cleanup(func() { close(ended) })
	return h
}

// hanging takes a request and never answers.
func hanging(c *originConn) bool {
	c.request()
	io.Copy(io.Discard, c.Conn)
	return false
}

// startServer starts a peer by HTTP/1.1 and HTTP/2, and returns its address.
func startServer(t testing.TB, handler http.HandlerFunc) (address string) {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of trailers that net/http does not send
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// looks is how long it takes until it has been looked more than once whether the
// client of an exchange is there.
const looks = 2 * (socket.FirstProbe + 250*time.Millisecond)

const (
	okResponse     = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	getRequest     = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	closingRequest = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
)

func (o *origin) connections() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.accepted
}

// hasAccepted reports whether a client's connection has been accepted.
func (o *origin) hasAccepted(client net.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.conns, func(c net.Conn) bool { return c.RemoteAddr().String() == client.String() })
}

// open returns how many connections are open.
func (o *origin) open() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.accepted - o.ended
}

// oneByteReader keeps a bufio.Reader from reading ahead.
type oneByteReader struct{ io.Reader }

func (r oneByteReader) Read(b []byte) (int, error) { return r.Reader.Read(b[:1]) }

// readResponse reads a response to a GET, and no byte more.
func readResponse(t testing.TB, conn net.Conn) (status int, body string) {
	t.Helper()
	return readResponseTo(t, conn, "GET")
}

// expectResponse ends the test unless the response to a GET has that status, and that body if one
// is given.
func expectResponse(t testing.TB, conn net.Conn, status int, body ...string) {
	t.Helper()
	got, text := readResponse(t, conn)
	verify.Require(t, got == status && (len(body) == 0 || text == body[0]), "got %d %q, want %d %q", got, text, status, body)
}

// expectRest ends the test unless what comes until the end is want.
func expectRest(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got, err := io.ReadAll(r)
	verify.Require(t, err == nil && string(got) == want, "got %q, %v, want %q and the end", got, err, want)
}

// expectNext ends the test unless what comes next is want.
func expectNext(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	_, err := io.ReadFull(r, got)
	verify.Require(t, err == nil && string(got) == want, "got %q, %v, want %q", got, err, want)
}

func readResponseTo(t testing.TB, conn net.Conn, method string) (status int, body string) {
	t.Helper()
	return readResponseFrom(t, bufio.NewReader(oneByteReader{conn}), method)
}

// readResponseFrom is for those who read all responses of a connection from one
// reader, which is faster.
func readResponseFrom(t testing.TB, reader *bufio.Reader, method string) (status int, body string) {
	t.Helper()
	r, err := http.ReadResponse(reader, &http.Request{Method: method})
	verify.Require(t, err == nil, "read response: %v", err)
	b, err := io.ReadAll(r.Body)
	verify.Require(t, err == nil, "read response's body: %v", err)
	return r.StatusCode, string(b)
}
