//lint:file-ignore SA1019 net/http refuses the field :protocol.

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/proxy/http2"
	"sluice/route"
	"sluice/test/verify"
)

const http2WebSocket = ":method=CONNECT|:protocol=websocket|:scheme=http|:authority=a|:path=/ws"

// switching is the head of a response that switches to WebSocket.
func switching(key string) string {
	accept := newAccept(key)
	return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: " + accept + "\r\nSec-WebSocket-Protocol: b\r\n\r\n"
}

func newAccept(key string) string {
	var k webSocketKey
	copy(k[:], key)
	return k.accept()
}

// echoingWebSocket switches to WebSocket, greets, and sends back what it gets.
var echoingWebSocket = withRequest(func(c *originConn, r *http.Request) bool {
	c.write(switching(r.Header.Get("Sec-WebSocket-Key")) + "hello ")
	io.Copy(c.Conn, c.Reader)
	c.Conn.(interface{ CloseWrite() error }).CloseWrite()
	return false
})

// Sample of RFC 6455, section 1.3.
func TestWebSocketKey(t *testing.T) {
	verify.Equal(t, newAccept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "result")
	a, b := newWebSocketKey(), newWebSocketKey()
	verify.That(t, a != b, "twice the key %s", a[:])
}

// An extended CONNECT arrives at the peer as an upgrade of HTTP/1.1.
func TestHTTP2Tunnel(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, echoingWebSocket)
	p := startProxy(t, Options{}, origin.address())
	c := p.dialFrames()
	c.request(1, http2WebSocket+"|sec-websocket-key=dGhlIHNhbXBsZSBub25jZQ==|sec-websocket-version=13|cookie=a=1|cookie=b=2|te=trailers", false)
	c.WriteData(1, false, []byte("early ")) // before the response
	f, ok := c.read().(*xhttp2.MetaHeadersFrame)
	verify.Require(t, ok && f.PseudoValue("status") == "200" && len(f.RegularFields()) == 1 && f.RegularFields()[0].Name == "sec-websocket-protocol", "got %v", f)
	c.expectBytes(1, "hello early ")
	verify.Equal(t, p.inflight(), 1, "in flight")
	head := regexp.MustCompile("^GET /ws HTTP/1.1\r\nhost: a\r\nsec-websocket-version: 13\r\ncookie: a=1; b=2\r\n" +
		"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: [A-Za-z0-9+/]{22}==\r\n" +
		"X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-Host: a\r\nX-Forwarded-Proto: http\r\nVia: 2.0 sluice\r\n\r\nearly $")
	got := origin.got()
	verify.That(t, head.MatchString(got) && !strings.Contains(got, "dGhlIHNhbXBsZSBub25jZQ"), "the peer got %q", got)
	c.WriteData(1, true, []byte("late")) // the other direction goes on
	r := c.response(1)
	verify.That(t, r.body == "late" && r.ended, "got %+v", r)
	eventually(t, "no request in flight", func() bool { return p.inflight() == 0 && origin.open() == 0 })
	p.expectNothingCounted()
	c.openTunnel(3)
}

// The bytes of a tunnel are in the metrics while it is open, once. Another peer is tried for it.
func TestTunnelIsCountedMeanwhile(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, nowhere[0], startOrigin(t, echoingWebSocket).address())
	expect := func(ended uint64, in, out int64) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d ended, %d bytes in, %d out", ended, in, out), func() bool {
			got := p.pool.Requests.Snapshot()
			return got.Total() == ended && got.BytesIn == in && got.BytesOut == out
		})
	}
	conn := p.dial()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
	expect(0, 5, 11)
	conn.Close()
	expect(1, 5, 11)

	c := p.dialFrames()
	c.openTunnel(1)
	expect(1, 5, 17)
	c.WriteData(1, false, []byte("123"))
	expect(1, 8, 20)
	c.WriteData(1, true, nil)
	expect(2, 8, 20)
}

// What a peer answers instead of switching is an ordinary response, unless its status would say in
// HTTP/2 that it has switched. No peer is blamed.
func TestHTTP2TunnelDeclined(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
	for _, test := range []struct{ answer, status, reason, body string }{
		{"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", "403", "", "no"},
		{"HTTP/1.1 426 No\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nContent-Length: 2\r\n\r\nno", "426", "", "no"},
		{"HTTP/1.1 302 No\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n", "302", "", ""},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", "502", "upgrade_declined", ""},
		{"HTTP/1.1 204 OK\r\n\r\n", "502", "upgrade_declined", ""},
		{head + "Upgrade: websocket\r\n\r\nno", "502", "bad_response", ""},
		{head + "Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nno", "502", "bad_response", ""},
		{head + "Upgrade: evil\r\nSec-WebSocket-Accept: @\r\n\r\nno", "502", "bad_response", ""},
		{head + "Sec-WebSocket-Accept: @\r\n\r\nno", "502", "bad_response", ""},
	} {
		origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
			return c.write(strings.Replace(test.answer, "@", newAccept(r.Header.Get("Sec-WebSocket-Key")), 1))
		}))
		p := startProxy(t, Options{}, origin.address())
		c := p.dialFrames()
		c.request(1, http2WebSocket, false)
		r := c.response(1)
		verify.That(t, r.status == test.status && r.header["x-sluice-reason"] == test.reason && (test.body == "" || r.body == test.body) && r.ended, "%q: got %+v", test.answer, r)
		c.expectReset(1, xhttp2.ErrCodeNo)
		p.expectNothingCounted()
		verify.Equal(t, origin.connections(), 1, "%q: attempts", test.answer)
	}
}

// What would be another request in HTTP/1.1, or is no request for WebSocket, reaches no peer.
// [sluice/proxy/fields] and [sluice/proxy/http1] have the tables of what is refused.
func TestHTTP2Malformed(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, echoingWebSocket)
	p := startProxy(t, Options{}, origin.address())
	c := p.dialFrames()
	without := func(field string) string {
		return strings.Replace(http2WebSocket+"|", field+"|", "", 1) + "x=1"
	}
	with := func(protocol string) string {
		return strings.Replace(http2WebSocket, ":protocol=websocket", ":protocol="+protocol, 1)
	}
	id := uint32(1)
	for _, test := range []struct {
		fields, status string // empty: the stream is reset
	}{
		{fields: http2Get + "|x=1\r\nhost: b"},
		{http2Get + "|host=b", "400"},
		{http2Get + strings.Repeat("|x=1", 101), "431"},
		{fields: without(":protocol=websocket")},
		{http2WebSocket + "|host=b", "400"},
		{without(":authority=a"), "400"},
		{with("connect-udp"), "501"},
		{with("HTTP/1.1"), "501"},
		{with("websocket, h2c"), "501"},
		{with("websocket/13"), "501"},
		{with("x") + "|content-type=application/grpc|te=trailers", "501"},
		{":method=CONNECT|:authority=a:1", "405"},
	} {
		c.request(id, test.fields, false)
		r := c.response(id)
		verify.That(t, r.status == test.status && (r.status != "501" || r.header["x-sluice-reason"] == "protocol_refused"), "%q: got %+v", test.fields, r)
		if test.status == "" {
			verify.Equal(t, r.reset, xhttp2.ErrCodeProtocol, "%q: reset", test.fields)
		} else { // the rest of the stream is not needed
			c.expectReset(id, xhttp2.ErrCodeNo)
		}
		id += 2
	}
	verify.Equal(t, origin.got(), "", "the peer")
	c.openTunnel(id)
	c.request(id, "x=1", true) // a trailer section: RFC 9113, section 8.5
	c.expectReset(id, xhttp2.ErrCodeProtocol)
	eventually(t, "the tunnel has ended", func() bool { return p.inflight() == 0 && origin.open() == 0 })
	p.expectNothingCounted()
}

// A peer with HTTP/2 gets no request for WebSocket, by whatever protocol.
func TestNoWebSocketToHTTP2Peers(t *testing.T) {
	t.Parallel()
	p := startProxyToH2C(t, startServer(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("the peer got %v", r) }))
	c := p.dialFrames()
	c.request(1, http2WebSocket, false)
	r := c.response(1)
	verify.That(t, r.status == "501" && r.header["x-sluice-reason"] == "no_websocket", "got %+v", r)
	conn := p.dial()
	for range 2 {
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		status, body := readResponse(t, conn)
		verify.That(t, status == 501 && strings.Contains(body, "HTTP/2"), "got %d %q", status, body)
	}
	p.expectNothingCounted()
}

// What ends a tunnel early ends both sides. TestCutTunnelIsCut has resets by either side.
func TestHTTP2TunnelBreaks(t *testing.T) {
	t.Parallel()
	short := 200 * time.Millisecond
	type test struct {
		timeouts route.Timeouts
		end      func(c *frameClient)
		reset    bool
	}
	eachCase(t, map[string]test{
		"client's connection ends":    {route.Timeouts{}, func(c *frameClient) { c.conn.Close() }, false},
		"idle":                        {route.Timeouts{Tunnel: short}, func(*frameClient) {}, true},
		"idle after the client's end": {route.Timeouts{Idle: short}, func(c *frameClient) { c.WriteData(1, true, nil) }, true},
	}, func(t *testing.T, test test) {
		over := make(chan struct{})
		origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
			if r.URL.Path != "/ws" {
				return c.write(okResponse)
			}
			c.write(switching(r.Header.Get("Sec-WebSocket-Key")) + "hello ")
			<-over
			return false
		}))
		defer close(over)
		p := startProxy(t, Options{}, origin.address())
		p.setService(route.Service{Timeouts: test.timeouts, Retry: route.Retry{Attempts: 1}})
		c := p.dialFrames()
		c.openTunnel(1)
		test.end(c)
		if test.reset {
			c.expectReset(1, xhttp2.ErrCodeCancel)
		}
		eventually(t, "the tunnel has ended", func() bool { return p.inflight() == 0 })
		p.expectNothingCounted()
		if test.reset {
			c.expectAlive(3)
		}
	})
}

// A tunnel whose client does not take bytes holds up its peer, and one whose peer does not
// take bytes its client. Neither holds up other streams.
func TestHTTP2TunnelFlowControl(t *testing.T) {
	t.Parallel()
	const flood = 16 << 20
	sent := make(chan error, 1)
	takes := make(chan struct{})
	origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
		if r.URL.Path != "/ws" {
			return c.write(okResponse)
		}
		c.write(switching(r.Header.Get("Sec-WebSocket-Key")))
		go func() {
			_, err := c.Conn.Write(make([]byte, flood))
			sent <- err
		}()
		<-takes
		io.Copy(io.Discard, c.Reader)
		closeWrite(t, c.Conn)
		return false
	}))
	p := startProxy(t, Options{}, origin.address())
	c := p.dialFrames()
	c.request(1, http2WebSocket, false)
	c.drain(http2.InitialWindow)
	c.WriteWindowUpdate(0, flood) // only the window of the stream is used up
	uploaded := 0
	for window := http2.InitialWindow; window > 0; { // until the socket of the peer is full
		n := min(window, http2.MaxFrameBytes)
		c.WriteData(1, false, make([]byte, n))
		uploaded, window = uploaded+n, window-n
		c.WritePing(false, [8]byte{1})
		for answered := false; !answered; {
			switch f := verify.Result(c.ReadFrame()).Must(t).(type) {
			case *xhttp2.WindowUpdateFrame:
				if f.StreamID == 1 {
					window += int(f.Increment)
				}
			case *xhttp2.PingFrame:
				answered = true
			}
		}
	}
	c.expectAlive(3)
	select {
	case err := <-sent:
		t.Errorf("the peer could send all: %v", err)
	default:
	}
	close(takes)
	c.WriteWindowUpdate(1, flood)
	c.drain(flood - http2.InitialWindow)
	verify.Succeeds(t, <-sent)
	c.WriteData(1, true, nil)
	r := c.response(1)
	verify.That(t, r.ended && r.body == "", "got %+v", r)
	eventually(t, "all bytes are counted", func() bool {
		got := p.pool.Requests.Snapshot()
		return got.BytesIn == int64(uploaded) && got.BytesOut == int64(flood+len("ok"))
	})
}

// A tunnel keeps a stopping server no longer than its time.
func TestHTTP2TunnelEndsWithServer(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, echoingWebSocket)
	p := newUnmanagedProxy(t, Options{}, origin.address())
	c := p.dialFrames()
	c.openTunnel(1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := p.shutDown(ctx, 0)
	c.WritePing(true, c.awaitGoAway())
	f, ok := c.read().(*xhttp2.GoAwayFrame)
	verify.Require(t, ok && f.LastStreamID == 1, "got %v", f)
	c.WriteData(1, false, []byte("still open")) // until the time is over
	c.expectBytes(1, "still open")
	cancel()
	err := <-ended
	verify.That(t, errors.Is(err, context.Canceled), "shutdown: %v", err)
	for c.read() != nil {
	}
	p.pool.Close()
}

// A webSocketTransport makes the handshake of a WebSocket client an extended CONNECT. byProto: its
// client of HTTP/3 knows the protocol from Request.Proto, not from a field.
type webSocketTransport struct {
	http.RoundTripper
	byProto bool
}

func (t webSocketTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	key := r.Header.Get("Sec-WebSocket-Key")
	body, up := io.Pipe()
	r = r.Clone(r.Context())
	r.Method, r.Body = http.MethodConnect, body
	r.Header.Del("Upgrade")
	r.Header.Del("Connection")
	r.Header.Del("Sec-WebSocket-Key")
	if t.byProto {
		r.Proto = "websocket"
	} else {
		r.Header.Set(":protocol", "websocket")
	}
	response, err := t.RoundTripper.RoundTrip(r)
	if err != nil || response.StatusCode != http.StatusOK {
		return response, err
	}
	response.StatusCode = http.StatusSwitchingProtocols
	response.Header.Set("Upgrade", "websocket")
	response.Header.Set("Connection", "Upgrade")
	response.Header.Set("Sec-WebSocket-Accept", newAccept(key))
	response.Body = struct {
		io.Reader
		io.WriteCloser
	}{response.Body, up}
	return response, nil
}
