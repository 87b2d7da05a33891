//lint:file-ignore SA1019 net/http refuses the field :protocol.

package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/proxy/http2"
	"sluice/route"
	"sluice/test/verify"
)

const http2WebSocket = ":method=CONNECT|:protocol=websocket|:scheme=http|:authority=a|:path=/ws"

// switching is the head of a response that switches to WebSocket.
func switching(key string) string {
	accept := newAccept(key)
	return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: " + accept + "\r\nX: 1\r\n\r\n"
}

func newAccept(key string) string {
	var k webSocketKey
	copy(k[:], key)
	return k.accept()
}

// echoingWebSocket switches to WebSocket, greets, and sends back what it gets.
func echoingWebSocket(c *originConn) bool {
	r, ok := c.request()
	if !ok {
		return false
	}
	io.WriteString(c.Conn, switching(r.Header.Get("Sec-WebSocket-Key"))+"hello ")
	io.Copy(c.Conn, c.Reader)
	c.Conn.(interface{ CloseWrite() error }).CloseWrite()
	return false
}

// openTunnel opens a tunnel to an echoingWebSocket and reads its greeting.
func (c *frameClient) openTunnel(id uint32) {
	c.t.Helper()
	c.request(id, http2WebSocket, false)
	f, ok := c.read().(*xhttp2.MetaHeadersFrame)
	verify.Require(c.t, ok && f.StreamID == id && f.PseudoValue("status") == "200" && !f.StreamEnded(), "got %v", f)
	c.expectBytes(id, "hello ")
}

// expectBytes reads DATA frames until they have brought want.
func (c *frameClient) expectBytes(id uint32, want string) {
	c.t.Helper()
	for got := ""; got != want; {
		f, ok := c.read().(*xhttp2.DataFrame)
		verify.Require(c.t, ok && f.StreamID == id, "got %v after %q, want %q", f, got, want)
		if got += string(f.Data()); !strings.HasPrefix(want, got) || f.StreamEnded() {
			c.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// Sample of RFC 6455, section 1.3.
func TestWebSocketKey(t *testing.T) {
	verify.Equal(t, newAccept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "result")
	if a, b := newWebSocketKey(), newWebSocketKey(); a == b {
		t.Errorf("twice the key %s", a[:])
	}
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
	verify.Require(t, ok && f.PseudoValue("status") == "200" && len(f.RegularFields()) == 1 && f.RegularFields()[0].Name == "x", "got %v", f)
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

// The bytes of a tunnel are in the metrics while it is open, once.
func TestTunnelIsCountedMeanwhile(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, echoingWebSocket)
	p := startProxy(t, Options{}, origin.address())
	expect := func(ended uint64, in, out int64) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d ended, %d bytes in, %d out", ended, in, out), func() bool {
			got := p.pool.Requests().Snapshot()
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
		origin := startOrigin(t, func(c *originConn) bool {
			r, ok := c.request()
			if !ok {
				return false
			}
			_, err := io.WriteString(c.Conn, strings.Replace(test.answer, "@", newAccept(r.Header.Get("Sec-WebSocket-Key")), 1))
			return err == nil
		})
		p := startProxy(t, Options{}, origin.address())
		c := p.dialFrames()
		c.request(1, http2WebSocket, false)
		r := c.response(1)
		if r.status != test.status || r.header["x-sluice-reason"] != test.reason || test.body != "" && r.body != test.body || !r.ended {
			t.Errorf("%q: got %+v", test.answer, r)
		}
		if f, ok := c.read().(*xhttp2.RSTStreamFrame); !ok || f.ErrCode != xhttp2.ErrCodeNo {
			t.Errorf("%q: got %v", test.answer, f)
		}
		p.expectNothingCounted()
		verify.Equal(t, origin.connections(), 1, "%q: attempts", test.answer)
	}
}

// What is no request for WebSocket opens no tunnel, and reaches no peer.
func TestHTTP2TunnelMalformed(t *testing.T) {
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
		{fields: without(":scheme=http")},
		{fields: without(":path=/ws")},
		{fields: without(":method=CONNECT")},
		{fields: strings.Replace(http2WebSocket, "CONNECT", "GET", 1)},
		{fields: strings.Replace(http2WebSocket, "CONNECT", "POST", 1)},
		{fields: strings.Replace(http2WebSocket, "CONNECT", "connect", 1)},
		{fields: strings.Replace(http2WebSocket, ":path=/ws", ":path=ws", 1)},
		{fields: strings.Replace(http2WebSocket, ":path=/ws", ":path=*", 1)},
		{fields: strings.Replace(http2WebSocket, ":path=/ws", ":path=a:1", 1)},
		{fields: strings.Replace(http2WebSocket, ":path=/ws", ":path=/ HTTP/1.1", 1)},
		{fields: strings.Replace(http2WebSocket, ":scheme=http", ":scheme=ws", 1)},
		{fields: with("")},
		{fields: with("websocket\r\nhost: b")},
		{fields: with("websocket|:protocol=websocket")},
		{fields: http2WebSocket + "|content-length=4"},
		{fields: http2WebSocket + "|content-length=0"},
		{fields: http2WebSocket + "|upgrade=websocket"},
		{fields: http2WebSocket + "|connection=upgrade"},
		{fields: http2WebSocket + "|transfer-encoding=chunked"},
		{fields: without(":protocol=websocket")},
		{fields: http2WebSocket + "|:authority=b"},
		{fields: "x=1|" + http2WebSocket},
		{http2WebSocket + "|host=b", "400"},
		{without(":authority=a"), "400"},
		{strings.Replace(http2WebSocket, ":authority=a", ":authority=u@a", 1), "400"},
		{with("connect-udp"), "501"},
		{with("h2c"), "501"},
		{with("HTTP/1.1"), "501"},
		{with("websocket, h2c"), "501"},
		{with("websocket/13"), "501"},
		{with("x") + "|content-type=application/grpc|te=trailers", "501"},
		{":method=CONNECT|:authority=a:1", "405"},
	} {
		c.request(id, test.fields, false)
		r := c.response(id)
		if r.status != test.status || test.status == "" && r.reset != xhttp2.ErrCodeProtocol || test.status == "501" && r.header["x-sluice-reason"] != "protocol_refused" {
			t.Errorf("%q: got %+v", test.fields, r)
		}
		if test.status != "" { // the rest of the stream is not needed
			if f, ok := c.read().(*xhttp2.RSTStreamFrame); !ok || f.ErrCode != xhttp2.ErrCodeNo {
				t.Errorf("%q: got %v", test.fields, f)
			}
		}
		id += 2
	}
	verify.Equal(t, origin.got(), "", "the peer")
	c.openTunnel(id)
	c.request(id, "x=1", true) // a trailer section: RFC 9113, section 8.5
	if f, ok := c.read().(*xhttp2.RSTStreamFrame); !ok || f.StreamID != id || f.ErrCode != xhttp2.ErrCodeProtocol {
		t.Errorf("got %v", f)
	}
	eventually(t, "the tunnel has ended", func() bool { return p.inflight() == 0 && origin.open() == 0 })
	p.expectNothingCounted()
}

// A peer with HTTP/2 gets no request for WebSocket, by whatever protocol.
func TestNoWebSocketToHTTP2Peers(t *testing.T) {
	t.Parallel()
	origin := startH2COrigin(t, func(w http.ResponseWriter, r *http.Request) { t.Errorf("the peer got %v", r) })
	p := startProxyToH2C(t, origin.address)
	c := p.dialFrames()
	c.request(1, http2WebSocket, false)
	if r := c.response(1); r.status != "501" || r.header["x-sluice-reason"] != "no_websocket" {
		t.Errorf("got %+v", r)
	}
	conn := p.dial()
	for range 2 {
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		if status, body := readResponse(t, conn); status != 501 || !strings.Contains(body, "HTTP/2") {
			t.Errorf("got %d %q", status, body)
		}
	}
	p.expectNothingCounted()
}

// Whatever ends a tunnel early ends both sides.
func TestHTTP2TunnelBreaks(t *testing.T) {
	t.Parallel()
	short := 200 * time.Millisecond
	for _, test := range []struct {
		name     string
		timeouts route.Timeouts
		end      func(c *frameClient, peer *net.TCPConn)
		reset    bool
	}{
		{"client resets", route.Timeouts{}, func(c *frameClient, _ *net.TCPConn) { c.WriteRSTStream(1, xhttp2.ErrCodeCancel) }, false},
		{"client's connection ends", route.Timeouts{}, func(c *frameClient, _ *net.TCPConn) { c.conn.Close() }, false},
		{"peer resets", route.Timeouts{}, func(_ *frameClient, peer *net.TCPConn) { peer.SetLinger(0); peer.Close() }, true},
		{"idle", route.Timeouts{Tunnel: short}, func(*frameClient, *net.TCPConn) {}, true},
		{"idle after the client's end", route.Timeouts{Idle: short}, func(c *frameClient, _ *net.TCPConn) { c.WriteData(1, true, nil) }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			peers, over := make(chan *net.TCPConn, 1), make(chan struct{})
			origin := startOrigin(t, func(c *originConn) bool {
				r, ok := c.request()
				switch {
				case !ok:
					return false
				case r.URL.Path != "/ws":
					_, err := io.WriteString(c.Conn, okResponse)
					return err == nil
				}
				io.WriteString(c.Conn, switching(r.Header.Get("Sec-WebSocket-Key"))+"hello ")
				peers <- c.Conn.(*net.TCPConn)
				<-over
				return false
			})
			defer close(over)
			p := startProxy(t, Options{}, origin.address())
			timeouts := defaultTimeouts()
			timeouts.Tunnel, timeouts.Idle = cmp.Or(test.timeouts.Tunnel, timeouts.Tunnel), cmp.Or(test.timeouts.Idle, timeouts.Idle)
			p.setService(route.Service{Timeouts: timeouts, Retry: route.Retry{Attempts: 1}})
			c := p.dialFrames()
			c.openTunnel(1)
			test.end(c, <-peers)
			if test.reset {
				if f, ok := c.read().(*xhttp2.RSTStreamFrame); !ok || f.StreamID != 1 || f.ErrCode != xhttp2.ErrCodeCancel {
					t.Errorf("got %v", f)
				}
			}
			eventually(t, "the tunnel has ended", func() bool { return p.inflight() == 0 })
			p.expectNothingCounted()
			if test.reset {
				c.expectAlive(3)
			}
		})
	}
}

// A tunnel whose client does not take bytes holds up its peer, and one whose peer does not
// take bytes its client. Neither holds up other streams.
func TestHTTP2TunnelFlowControl(t *testing.T) {
	t.Parallel()
	const flood = 16 << 20
	sent := make(chan error, 1)
	takes := make(chan struct{})
	origin := startOrigin(t, func(c *originConn) bool {
		r, ok := c.request()
		switch {
		case !ok:
			return false
		case r.URL.Path != "/ws":
			_, err := io.WriteString(c.Conn, okResponse)
			return err == nil
		}
		io.WriteString(c.Conn, switching(r.Header.Get("Sec-WebSocket-Key")))
		go func() {
			_, err := c.Conn.Write(make([]byte, flood))
			sent <- err
		}()
		<-takes
		io.Copy(io.Discard, c.Reader)
		closeWrite(t, c.Conn)
		return false
	})
	p := startProxy(t, Options{}, origin.address())
	c := p.dialFrames()
	c.request(1, http2WebSocket, false)
	received := 0
	for received < http2.InitialWindow {
		switch f := c.read().(type) {
		case *xhttp2.MetaHeadersFrame:
		case *xhttp2.DataFrame:
			received += len(f.Data())
		default:
			t.Fatalf("got %v after %d bytes", f, received)
		}
	}
	c.WriteWindowUpdate(0, flood) // only the window of the stream is used up
	uploaded := 0
	for window := http2.InitialWindow; window > 0; { // until the socket of the peer is full
		for window > 0 {
			n := min(window, 16<<10)
			c.WriteData(1, false, make([]byte, n))
			uploaded, window = uploaded+n, window-n
		}
		c.WritePing(false, [8]byte{1})
		for answered := false; !answered; {
			f, err := c.ReadFrame()
			verify.NoError(t, err)
			switch f := f.(type) {
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
	for received < flood {
		f, ok := c.read().(*xhttp2.DataFrame)
		verify.Require(t, ok && f.StreamID == 1, "got %v after %d bytes", f, received)
		received += len(f.Data())
	}
	if err := <-sent; err != nil || received != flood {
		t.Errorf("got %d bytes, %v", received, err)
	}
	c.WriteData(1, true, nil)
	if r := c.response(1); !r.ended || r.body != "" {
		t.Errorf("got %+v", r)
	}
	eventually(t, "all bytes are counted", func() bool {
		got := p.pool.Requests().Snapshot()
		return got.BytesIn == int64(uploaded) && got.BytesOut == int64(flood+len("ok"))
	})
}

// A tunnel is an attempt as any other: it is tried again, has affinity, and is in flight.
func TestHTTP2TunnelIsAnAttempt(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, echoingWebSocket)
	p := startProxy(t, Options{}, nowhere[0], origin.address())
	p.setService(route.Service{
		Timeouts: defaultTimeouts(), Retry: route.Retry{Attempts: 3}, Affinity: &route.Affinity{Cookie: "id"},
	})
	c := p.dialFrames()
	id := uint32(1)
	for ; id < 9; id += 2 {
		c.request(id, http2WebSocket, false)
		f, ok := c.read().(*xhttp2.MetaHeadersFrame)
		verify.Require(t, ok && f.PseudoValue("status") == "200", "got %v", f)
		cookie := ""
		for _, field := range f.RegularFields() {
			if field.Name == "set-cookie" {
				cookie = field.Value
			}
		}
		verify.That(t, strings.HasPrefix(cookie, "id="), "cookie %q", cookie)
		c.expectBytes(id, "hello ")
	}
	verify.Equal(t, p.inflight(), 4, "in flight")
	var failures uint64
	for _, peer := range p.pool.Snapshot().All {
		failures += peer.Outcomes()[balancer.OutcomeConnectFailure]
	}
	verify.That(t, failures != 0, "no request was tried again")
}

// A tunnel keeps a stopping server no longer than its time.
func TestHTTP2TunnelEndsWithServer(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, echoingWebSocket)
	p := newUnmanagedProxy(t, Options{}, origin.address())
	c := p.dialFrames()
	c.openTunnel(1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Shutdown(ctx, 0) }()
	if f, ok := c.read().(*xhttp2.GoAwayFrame); !ok || f.ErrCode != xhttp2.ErrCodeNo {
		t.Fatalf("got %v", f)
	}
	ping, ok := c.read().(*xhttp2.PingFrame)
	verify.Require(t, ok, "got %v", ping)
	c.WritePing(true, ping.Data)
	if f, ok := c.read().(*xhttp2.GoAwayFrame); !ok || f.LastStreamID != 1 {
		t.Fatalf("got %v", f)
	}
	c.WriteData(1, false, []byte("still open")) // until the time is over
	c.expectBytes(1, "still open")
	cancel()
	err := <-ended
	verify.That(t, errors.Is(err, context.Canceled), "shutdown: %v", err)
	for c.read() != nil {
	}
	p.pool.Close()
}

// A webSocketTransport makes the handshake of a WebSocket client an extended CONNECT.
type webSocketTransport struct{ *xhttp2.Transport }

func (t webSocketTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	key := r.Header.Get("Sec-WebSocket-Key")
	body, up := io.Pipe()
	r = r.Clone(r.Context())
	r.Method, r.Body = http.MethodConnect, body
	r.Header.Del("Upgrade")
	r.Header.Del("Connection")
	r.Header.Del("Sec-WebSocket-Key")
	r.Header.Set(":protocol", "websocket")
	response, err := t.Transport.RoundTrip(r)
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

// Many WebSockets share a connection with requests.
func TestWebSocketOverHTTP2(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ws" {
			io.WriteString(w, "ok")
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"b"}, CompressionMode: websocket.CompressionContextTakeover})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(2 << 20)
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, message); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	p := startProxy(t, Options{}, strings.TrimPrefix(server.URL, "http://"))
	transport := &xhttp2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			c, _, err := websocket.Dial(ctx, "http://"+p.address+"/ws", &websocket.DialOptions{
				HTTPClient: &http.Client{Transport: webSocketTransport{transport}}, Subprotocols: []string{"a", "b"},
				CompressionMode: websocket.CompressionContextTakeover,
			})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.CloseNow()
			verify.Equal(t, c.Subprotocol(), "b", "subprotocol")
			c.SetReadLimit(2 << 20)
			for _, size := range []int{0, 1, 1000, 300_000, 1 << 20} {
				message := strings.Repeat("x", size)
				verify.Succeeds(t, c.Write(ctx, websocket.MessageText, []byte(message)))
				if _, got, err := c.Read(ctx); err != nil || string(got) != message {
					t.Errorf("got %d bytes, %v, want %d", len(got), err, size)
				}
				r, err := (&http.Client{Transport: transport}).Get("http://" + p.address + "/")
				if err != nil {
					t.Error(err)
					return
				}
				if body, err := io.ReadAll(r.Body); err != nil || string(body) != "ok" {
					t.Errorf("got %q, %v", body, err)
				}
				r.Body.Close()
			}
			verify.Succeeds(t, c.Close(websocket.StatusNormalClosure, "bye"))
		})
	}
	wg.Wait()
	eventually(t, "no request in flight", func() bool { return p.inflight() == 0 })
	p.expectNothingCounted()
}
