package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"sluice/route"
	"sluice/route/places"
	"sluice/test/verify"
)

// v2Start begins a header of version 2.
const v2Start = "\r\n\r\n\x00\r\nQUIT\n"

const headerV1 = "PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"

// headerV2 returns a PROXY header of version 2 with that client and an extension of so
// many bytes.
func headerV2(t *testing.T, client string, extension int) string {
	t.Helper()
	h := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(client)), net.TCPAddrFromAddrPort(netip.MustParseAddrPort("198.51.100.1:443")))
	if extension > 0 {
		verify.NoError(t, h.SetTLVs([]proxyproto.TLV{{Type: 0xE0, Value: make([]byte, extension)}}))
	}
	b := verify.Result(h.Format()).Must(t)
	return string(b)
}

// serveProxies also serves p at a listener for proxies on loopback addresses.
func (p *testProxy) serveProxies(o ListenerOptions) (l net.Listener) {
	p.t.Helper()
	if o.Proxies == nil {
		o.Proxies = loopback
	}
	o.Name = "proxies"
	l, _ = p.serveUntil(o)
	p.address = l.Addr().String()
	return l
}

// tellAddress answers with the address that sluice forwards.
var tellAddress = withRequest(func(c *originConn, r *http.Request) bool { return c.answer(r.Header.Get("X-Forwarded-For")) })

func TestProxyHeaderBeforeHTTP(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startOrigin(t, tellAddress).address())
	p.serveProxies(ListenerOptions{})
	for _, test := range []struct{ header, client string }{
		{headerV1, "203.0.113.7"},
		{"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", "2001:db8::1"},
		{headerV2(t, "203.0.113.8:1", 0), "203.0.113.8"},
		{headerV2(t, "203.0.113.8:1", 3000), "203.0.113.8"},
		// The proxy speaks for itself.
		{"PROXY UNKNOWN\r\n", "127.0.0.1"},
		{v2Start + "\x20\x00\x00\x00", "127.0.0.1"},
	} {
		conn := p.send(test.header + getRequest)
		expectResponse(t, conn, 200, test.client)
		io.WriteString(conn, getRequest) // on the same connection
		expectResponse(t, conn, 200, test.client)
	}
	// In single bytes.
	conn := p.stream()
	conn.SetNoDelay(true)
	for _, b := range []byte(headerV1 + getRequest) {
		conn.Write([]byte{b})
	}
	expectResponse(t, conn, 200, "203.0.113.7")
}

// A connection of a proxy without a header is closed, and so is one that does not
// send it in time or leaves. The header of a client that is no proxy is no header.
func TestMissingProxyHeader(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Timeouts: Timeouts{Head: 200 * time.Millisecond}}, startOrigin(t, tellAddress).address())
	p.serveProxies(ListenerOptions{})
	for _, sent := range []string{getRequest, "PROXY nonsense\r\n", "PROXY TCP4 ", ""} {
		verify.Equal(t, p.raw(sent), "", "the answer to %q", sent)
	}
	conn := p.stream()
	io.WriteString(conn, "PROXY ")
	conn.CloseWrite()
	got, _ := io.ReadAll(conn)
	verify.That(t, len(got) == 0, "got %q", got)
	eventually(t, "nothing is counted", func() bool {
		p.admission.mu.Lock()
		defer p.admission.mu.Unlock()
		return p.admission.open == 0 && len(p.admission.perBlock) == 0
	})
	p.serveProxies(ListenerOptions{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	p.expect(headerV1+closingRequest, "400")
	p.expect(closingRequest, "200", "\r\n127.0.0.1")
}

// A connection of a proxy counts once, so the last place is one for a client too. The limit for an
// address is that of the clients, not of the proxy.
func TestConnectionsBehindAProxy(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Limits: Limits{Connections: 2, ConnectionsPerAddress: 1}}, startOrigin(t, tellAddress).address())
	p.serveProxies(ListenerOptions{})
	open := func(client string) (net.Conn, string) {
		conn := p.stream()
		io.WriteString(conn, "PROXY TCP4 "+client+" 198.51.100.1 4711 443\r\n"+getRequest)
		b := make([]byte, 12)
		n, _ := io.ReadFull(conn, b)
		return conn, string(b[:n])
	}
	first, got := open("203.0.113.1")
	verify.Equal(t, got, "HTTP/1.1 200", "the first client")
	_, got = open("203.0.113.1")
	verify.Equal(t, got, "", "the first client again")
	_, got = open("127.0.0.1")
	verify.Equal(t, got, "HTTP/1.1 200", "the proxy's own address as the second client")
	_, got = open("203.0.113.3") // a reset may overtake the answer
	verify.That(t, got != "HTTP/1.1 200", "the third client: %q", got)
	verify.Equal(t, p.Stats().Refused, 2, "refused")
	first.Close()
	eventually(t, "it may connect again", func() bool { _, got := open("203.0.113.1"); return got == "HTTP/1.1 200" })
}

// Peers get a header with the addresses of the client.
func TestProxyHeaderToPeers(t *testing.T) {
	t.Parallel()
	for version, start := range map[byte]string{1: "PROXY ", 2: v2Start} {
		heard := make(chan *proxyproto.Header, 1)
		origin := startOrigin(t, func(c *originConn) bool {
			if b, err := c.Reader.Peek(len(start)); err != nil || string(b) != start {
				t.Errorf("got %q, %v", b, err)
			}
			h, err := proxyproto.Read(c.Reader)
			verify.Succeeds(t, err)
			heard <- h
			io.Copy(c.Conn, c.Reader)
			return false
		})
		p := startProxy(t, Options{}, origin.address())
		p.setService(route.Service{Retry: route.Retry{Attempts: 1}, ProxyProtocol: version})
		p.serveProxies(ListenerOptions{Streams: p.target})
		conn := p.stream()
		io.WriteString(conn, headerV1+"hello")
		conn.CloseWrite()
		got, err := io.ReadAll(conn)
		verify.That(t, err == nil && string(got) == "hello", "version %d: got %q, %v", version, got, err)
		h := <-heard
		verify.That(t, h != nil && h.SourceAddr.String() == "203.0.113.7:4711" && h.DestinationAddr.String() == "198.51.100.1:443", "version %d: the peer got %+v", version, h)
	}
}

// A server that stops closes connections that have not sent a header.
func TestShutdownBeforeAProxyHeader(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	p.serveProxies(ListenerOptions{})
	p.stream()
	p.awaitArrivals(1)
	// startProxy shuts the server down, and reports what does not end.
}

// awaitArrivals waits until so many connections are waited for.
func (p *testProxy) awaitArrivals(n int) {
	p.t.Helper()
	eventually(p.t, fmt.Sprint(n, " headers are awaited"), func() bool {
		return len(connections[*arrival](p.Server)) == n
	})
}

// The waits for a client are its own in the sweeper: by its address, or by that of the proxy that
// has not said it yet.
func TestWaitsAreOfTheirClient(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startOrigin(t, tellAddress).address())
	p.serveProxies(ListenerOptions{HTTP2: true})
	block := func(address string) places.Block { return places.BlockOf(netip.MustParseAddr(address)) }
	conn := p.stream()
	p.awaitArrivals(1)
	for _, a := range connections[*arrival](p.Server) {
		client, _ := a.entry.Owner.Parties()
		verify.Equal(t, client, any(block("127.0.0.1")), "who waits for the header")
	}
	io.WriteString(conn, headerV1)
	frames := framesOn(t, conn)
	verify.Equal(t, frames.ask(1, http2Get).body, "203.0.113.7", "the client")
	h := p.onlyHTTP2Client()
	of, _ := h.conn.Parties()
	verify.Equal(t, of, any(block("203.0.113.7")), "who waits on the connection")
	h.protocol.Mu.Lock()
	defer h.protocol.Mu.Unlock()
	s := h.takeStreamLocked()
	of, _ = s.Parties()
	verify.Equal(t, of, any(block("203.0.113.7")), "who waits on a stream")
	h.dropLocked(s)
}

// The header of a connection is awaited no longer than a drain waits for requests: also if
// the drain begins before the wait, and if it is that of one listener.
func TestProxyHeaderWhileDraining(t *testing.T) {
	t.Parallel()
	const short, long = 100 * time.Millisecond, 24 * time.Hour
	type drain struct {
		before, after func(p *testProxy, l net.Listener)
	}
	eachCase(t, map[string]drain{
		"server, before the wait": {before: func(p *testProxy, _ net.Listener) {
			p.idleUntil.Store(p.sweeper.Now() + int64(short))
			p.draining.Store(true)
		}},
		"listener":                {after: func(p *testProxy, l net.Listener) { p.Drain(l, short, long) }},
		"listener, after its end": {after: func(p *testProxy, l net.Listener) { p.Drain(l, long, short) }},
	}, func(t *testing.T, drain drain) {
		p := startProxy(t, Options{Timeouts: Timeouts{Head: long}}, startOrigin(t, tellAddress).address())
		l := p.serveProxies(ListenerOptions{})
		eventually(t, "both listeners are served", func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return len(p.listeners) == 2
		})
		if drain.before != nil {
			drain.before(p, l)
		}
		conn := p.stream()
		io.WriteString(conn, "PROXY ")
		if drain.after != nil {
			p.awaitArrivals(1)
			drain.after(p, l)
		}
		got, _ := io.ReadAll(conn)
		verify.That(t, len(got) <= 0, "got %q", got)
		p.awaitArrivals(0)
	})
}

// A connection whose header arrives while its listener drains serves the request that follows, as
// one that was idle.
func TestProxyHeaderArrivesWhileDraining(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startOrigin(t, tellAddress).address())
	l := p.serveProxies(ListenerOptions{})
	conn := p.stream()
	p.awaitArrivals(1)
	p.Drain(l, time.Hour, time.Hour)
	io.WriteString(conn, headerV1+getRequest)
	got, err := io.ReadAll(conn)
	verify.That(t, err == nil && strings.HasSuffix(string(got), "\r\nConnection: close\r\n\r\n203.0.113.7"), "got %q, %v", got, err)
}
