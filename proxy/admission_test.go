package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"sluice/proxy/socket"
	"sluice/route/places"
	"sluice/test/verify"
)

func TestAdmission(t *testing.T) {
	a := &admission{perBlock: make(map[places.Block]int)}
	a.configure(Limits{Connections: 6, ConnectionsPerAddress: 2}, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	for _, step := range []string{
		"admit 1.1.1.1", "admit 1.1.1.1", "refuse 1.1.1.1", "admit 1.1.1.2",
		"admit 2001:db8::1", "admit 2001:db8::ffff:1", "refuse 2001:db8::2", // the same /64
		"leave 1.1.1.1", "admit 1.1.1.1",
		"admit 10.0.0.1", "refuse 10.0.0.1", // the sixth
		"leave 2001:db8::1", "admit 10.0.0.1", "leave 10.0.0.1", "admit 10.0.0.1",
	} {
		do, address, _ := strings.Cut(step, " ")
		if client := netip.MustParseAddr(address); do == "leave" {
			a.leave(client)
		} else {
			verify.Equal(t, a.admit(client, false), do == "admit", "%s", step)
		}
	}
}

// A client with too many connections is told so, even if it has sent its request before it was
// accepted: what is unread when a connection is closed makes the system reset it. Others go on.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Limits: Limits{Connections: 100, ConnectionsPerAddress: 1}}, answersOK(t))
	first, l := p.dial(), listen(t)
	eventually(t, "a connection", func() bool { return p.Connections() == 1 })
	second := dialFrom(t, "127.0.0.1", l.Addr().String())
	io.WriteString(second, closingRequest)
	p.serveOn(l, ListenerOptions{Name: "later"})
	answer, err := io.ReadAll(second)
	verify.Succeeds(t, err)
	expectReason(t, string(answer), "503", "too_many_connections")
	verify.Equal(t, p.Stats().Refused, 1, "refused")
	verify.Succeeds(t, get200(p.dialFrom("127.0.0.2")))
	io.WriteString(first, closingRequest)
	expectResponse(t, first, 200)
	eventually(t, "a free place", func() bool { return p.Connections() == 0 })
	p.expect(closingRequest, "200")
}

// Networks of IPv4-mapped addresses are those of the IPv4 addresses, and so are
// the addresses of clients at a socket for both versions.
func TestTrustedNetworksOfMappedAddresses(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	for _, address := range []string{"127.0.0.1:0", "[::]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Skip(err) // no IPv6 here
		}
		p := startProxy(t, Options{}, origin.address())
		p.serveOn(l, ListenerOptions{Name: "other"})
		p.address = fmt.Sprintf("127.0.0.1:%d", l.Addr().(*net.TCPAddr).Port)
		for network, trusted := range map[string]bool{
			"::ffff:127.0.0.0/104": true, "::ffff:127.0.0.1/128": true, "127.0.0.1/32": true, "::ffff:127.0.0.0/103": true,
			"::ffff:10.0.0.0/104": false, "::1/128": false,
		} {
			p.change(func(o *Options) { o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(network)} })
			before := len(origin.got())
			p.raw("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n")
			verify.Equal(t, strings.Contains(origin.got()[before:], "6.6.6.6"), trusted, "%s trusts %s", address, network)
		}
	}
}

// Streams that have ended soon count as connections no more, also beside a WebSocket, which stays
// open for hours.
func TestUnusedStreamsGiveTheirPlacesBack(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
		if r.URL.Path != "/ws" {
			return c.write(okResponse)
		}
		c.write(switching(r.Header.Get("Sec-WebSocket-Key")) + "hello ")
		io.Copy(c.Conn, c.Reader)
		return false
	}))
	// open opens streams, each with a request whose end is to come, and answered ends them.
	open := func(c *frameClient, ids ...uint32) {
		for _, id := range ids {
			c.request(id, http2Post, false)
		}
	}
	answered := func(t *testing.T, c *frameClient, ids ...uint32) {
		for _, id := range ids {
			c.WriteData(id, true, nil)
			r := c.response(id)
			verify.Require(t, r.status == "200", "stream %d: %+v", id, r)
		}
	}
	for name, test := range map[string]struct {
		limits socket.ConnectionLimits
		do     func(t *testing.T, p *testProxy, c *frameClient)
	}{
		"before it": {do: func(t *testing.T, _ *testProxy, c *frameClient) {
			open(c, 1, 3, 5, 7)
			answered(t, c, 1, 3, 5, 7)
			c.openTunnel(9)
		}},
		"beside it": {do: func(t *testing.T, _ *testProxy, c *frameClient) {
			c.openTunnel(1)
			open(c, 3, 5, 7, 9)
			answered(t, c, 3, 5, 7, 9)
		}},
		"beside it, before the end of a frame": {do: func(t *testing.T, _ *testProxy, c *frameClient) {
			c.openTunnel(1)
			open(c, 3, 5, 7, 9)
			answered(t, c, 3, 5, 7)
			c.WriteData(9, true, nil)
			io.WriteString(c.conn, "\x00\x00") // of a frame of the tunnel
			r := c.response(9)
			verify.Require(t, r.status == "200", "%+v", r)
			io.WriteString(c.conn, "\x01\x00\x00\x00\x00\x00\x01x")
			c.expectBytes(1, "x")
		}},
		"after GOAWAY": {socket.ConnectionLimits{MaxRequests: 5}, func(t *testing.T, p *testProxy, c *frameClient) {
			c.openTunnel(1)
			open(c, 3, 5, 7, 9)
			for last := false; !last; {
				switch f := c.read().(type) {
				case *xhttp2.PingFrame:
					p.skip(http2GoAwayTimeout)
				case *xhttp2.GoAwayFrame:
					last = f.LastStreamID == 9
				default:
					t.Fatalf("got %v", f)
				}
			}
			answered(t, c, 3, 5, 7, 9)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t, Options{Connections: test.limits}, origin.address())
			c := p.dialFrames()
			test.do(t, p, c)
			eventually(t, "only the WebSocket has a place", func() bool { return p.admission.total() == 1 })
		})
	}
}
