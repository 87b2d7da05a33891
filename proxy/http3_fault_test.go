package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	own "sluice/proxy/http3"
	"sluice/route"
	"sluice/test/verify"
)

// startHTTP3Proxy starts a proxy with HTTP/3, and returns its address.
func startHTTP3Proxy(t testing.TB, o Options, origins ...string) (p *testProxy, address string) {
	t.Helper()
	p = startProxy(t, o, origins...)
	return p, p.serveHTTP3(ListenerOptions{Name: "h3"})
}

// An http3Fault is what a client does wrong on a new connection.
type http3Fault struct {
	what string
	code own.ErrorCode
	do   func(c *http3Frames)
}

// Faults that end the connection: RFC 9114, section 8.1, and RFC 9204, section 6.
// [sluice/proxy/http3] has all those of the streams beside requests, and [sluice/proxy/fields]
// those of field sections.
func TestHTTP3ConnectionFaults(t *testing.T) {
	t.Parallel()
	head, trailer, data := h3Head(http3Post), h3Head("x=1"), h3Data("body")
	settings := h3Frame(4, nil)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	// request sends bytes on a stream of a request, which goes on.
	request := func(parts ...[]byte) func(c *http3Frames) {
		return func(c *http3Frames) { c.open(parts...) }
	}
	// whole is request with the end of the stream.
	whole := func(parts ...[]byte) func(c *http3Frames) {
		return func(c *http3Frames) { c.open(parts...).CloseWrite() }
	}
	control := func(parts ...[]byte) func(c *http3Frames) {
		return func(c *http3Frames) { c.control.Write(join(parts...)); c.control.Flush() }
	}
	// first sends frames in place of the SETTINGS of dialHTTP3.
	first := func(parts ...[]byte) func(c *http3Frames) {
		return func(c *http3Frames) { c.control = c.openUni([]byte{0}, join(parts...)) }
	}
	withoutSettings := []http3Fault{
		{"no SETTINGS, but GOAWAY", own.MissingSettings, first(h3Frame(7, []byte{0}))},
		{"a setting twice", own.SettingsError, first(h3Frame(4, []byte{6, 0x10, 6, 0x10}))},
		{"long SETTINGS", own.ExcessiveLoad, first(h3Frame(4, make([]byte, 5000)))},
		{"the end of the control stream before SETTINGS", own.ClosedCriticalStream, func(c *http3Frames) { c.openUni([]byte{0}).CloseWrite() }},
	}
	tests := []http3Fault{
		{"DATA before HEADERS", own.FrameUnexpected, request(data)},
		{"DATA alone", own.FrameUnexpected, whole(data)},
		{"HEADERS after the trailer section", own.FrameUnexpected, request(head, data, trailer, trailer)},
		{"DATA after the trailer section", own.FrameUnexpected, request(head, data, trailer, data)},
		{"SETTINGS on the stream of a request", own.FrameUnexpected, request(settings)},
		{"SETTINGS after the trailer section", own.FrameUnexpected, request(head, data, trailer, settings)},
		{"GOAWAY on the stream of a request", own.FrameUnexpected, request(head, h3Frame(7, []byte{0}))},
		{"CANCEL_PUSH on the stream of a request", own.FrameUnexpected, request(head, h3Frame(3, []byte{0}))},
		{"PUSH_PROMISE on the stream of a request", own.FrameUnexpected, request(head, h3Frame(5, []byte{0, 0, 0}))},

		{"DATA on the control stream", own.FrameUnexpected, control(data)},

		{"HEADERS that end within the stream", own.FrameError, whole(head[:len(head)-1])},
		{"HEADERS without a byte of what is announced", own.FrameError, whole(head[:2])},
		{"DATA that ends within the stream", own.FrameError, whole(head, h3Data("body")[:4])},
		{"DATA without a byte of what is announced", own.FrameError, whole(head, []byte{0, 4})},
		{"a stream that ends within a type", own.FrameError, whole(head, []byte{0x40})},
		{"a stream that ends within a length", own.FrameError, whole(head, []byte{0, 0x40})},
		{"a stream that ends between type and length", own.FrameError, whole([]byte{1})},
		{"an unknown frame that ends within the stream", own.FrameError, whole(head, h3Frame(0x21, []byte("grease"))[:4])},
		{"a trailer section that ends within the stream", own.FrameError, whole(head, data, trailer[:3])},

		{"GOAWAY that is higher", own.IDError, control(h3Frame(7, []byte{4}), h3Frame(7, []byte{8}))},

		{"a push stream", own.StreamCreationError, func(c *http3Frames) { c.openUni([]byte{1, 0}) }},
		{"a second control stream", own.StreamCreationError, func(c *http3Frames) { c.openUni([]byte{0}, settings) }},
		{"a second encoder stream", own.StreamCreationError, func(c *http3Frames) { c.openUni([]byte{2}); c.openUni([]byte{2}) }},

		{"the end of the control stream", own.ClosedCriticalStream, func(c *http3Frames) { c.control.CloseWrite() }},
		{"a reset of the control stream", own.ClosedCriticalStream, func(c *http3Frames) { c.expectAlive(); c.control.Reset(1) }},
		{"a reset of the decoder stream", own.ClosedCriticalStream, func(c *http3Frames) {
			s := c.openUni([]byte{3})
			c.expectAlive() // so that the type has arrived
			s.Reset(1)
		}},

		{"an empty field section", own.DecompressionFailed, request(h3Frame(1, nil))},
		{"an empty field section at the end", own.DecompressionFailed, whole(h3Frame(1, nil))},
		{"a dynamic index", own.DecompressionFailed, whole(h3Frame(1, []byte{0, 0, 0x80}))},
		{"a trailer section that is no section", own.DecompressionFailed, whole(head, data, h3Frame(1, []byte{0, 0, 0x80}))},

		{"an insertion", own.EncoderStreamError, func(c *http3Frames) { c.openUni([]byte{2, 0xc0, 1, 'x'}) }},
		{"an increment of nothing", own.DecoderStreamError, func(c *http3Frames) { c.openUni([]byte{3, 0}) }},
	}
	for _, frame := range []uint64{2, 6, 8, 9} { // of HTTP/2: RFC 9114, section 7.2.8
		payload := h3Frame(frame, make([]byte, 8))
		tests = append(tests,
			http3Fault{fmt.Sprintf("type %d of HTTP/2 before HEADERS", frame), own.FrameUnexpected, request(payload)},
			http3Fault{fmt.Sprintf("type %d of HTTP/2 after HEADERS", frame), own.FrameUnexpected, request(head, payload)})
	}
	p, address := startHTTP3Proxy(t, Options{}, answersOK(t))
	ended := uint64(0)
	run := func(dial func(t testing.TB, to string) *http3Frames, tests []http3Fault) {
		for _, test := range tests {
			t.Run(test.what, func(t *testing.T) {
				c := dial(t, address)
				test.do(c)
				c.expectEnd(test.code)
				ended++
				eventually(t, "the connection is closed", func() bool { return p.Connections() == 0 })
				verify.Equal(t, p.http3.errors.Load(), ended, "connections that were ended for a fault")
			})
		}
	}
	run(dialBareHTTP3, withoutSettings)
	run(dialHTTP3, tests)
	p.expectNothingLeft(t, 0)
	dialHTTP3(t, address).expectAlive()
}

// What is malformed ends its stream only, and reaches no peer: RFC 9114, sections 4.1.2 to 4.3.
// [sluice/proxy/fields] has the table of all heads.
func TestHTTP3MalformedHeads(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, echoingWebSocket)
	p, address := startHTTP3Proxy(t, Options{}, origin.address())
	c := dialHTTP3(t, address)
	without := func(field string) string { return strings.Replace(http3Get+"|", field+"|", "", 1) + "x=1" }
	changed := func(field, to string) string { return strings.Replace(http3Get, field, to, 1) }
	webSocket := func(field, to string) string { return strings.Replace(http3WebSocket, field, to, 1) }
	// No status: the stream is reset.
	for _, test := range []struct{ fields, status, reason string }{
		{fields: without(":method=GET")},
		{fields: changed(":path=/", ":path=/ HTTP/1.1")},
		{fields: changed(":authority=a", ":authority=a\r\nx: b")},
		{fields: http3Get + "|:path=/"},
		{fields: http3Get + "|:unknown=1"},
		{fields: http3Get + "|X-Upper=1"},
		{fields: http3Get + "|x=1\r\nhost: b"},
		{fields: http3Get + "|connection=close"},
		{fields: http3Get + "|proxy-connection=close"},
		{fields: http3Get + "|transfer-encoding=chunked"},
		{fields: http3Get + "|content-length=4"}, // the stream ends without it
		{fields: http3Get + "|content-length=4|content-length=5"},
		{fields: ":method=CONNECT"},
		{fields: webSocket("|:path=/ws", "")},
		{fields: http3WebSocket + "|content-length=4"},

		{http3Get + "|host=b", "400", "bad_host"},
		{without(":authority=a"), "400", "bad_host"},
		{webSocket("|:authority=a", ""), "400", "bad_host"},
		{http3WebSocket + "|host=b", "400", "bad_host"},
		{http3Get + strings.Repeat("|x=1", 101), "431", "too_many_fields"},
		{http3Get + "|x=" + strings.Repeat("x", 17<<10), "431", "head_too_long"},
		{http3Get + "|x=" + strings.Repeat("x", 100<<10), "431", "head_too_long"},
		// Longer in Huffman code.
		{http3Get + "|x=" + strings.Repeat("^", 30<<10), "431", "head_too_long"},
		{changed(":path=/", ":path=/"+strings.Repeat("x", 9<<10)), "414", "target_too_long"},
		{":method=CONNECT|:authority=a:1", "405", "method_refused"},
		{webSocket("websocket", "connect-udp"), "501", "protocol_refused"},
		{webSocket("websocket", "webtransport"), "501", "protocol_refused"},
		{webSocket("websocket", "websocket, h2c"), "501", "protocol_refused"},
		{webSocket("CONNECT", "GET"), "", ""},
	} {
		r := c.open()
		r.Write(h3Head(test.fields))
		r.CloseWrite()
		a := r.response()
		if test.status == "" {
			verify.That(t, a.reset == own.MessageError && a.status == "", "%.200q: got %+v, want a reset", test.fields, a)
		} else {
			verify.That(t, a.status == test.status && a.header["x-sluice-reason"] == test.reason && a.ended && a.reset == 0, "%.200q: got %+v, want %s %s", test.fields, a, test.status, test.reason)
		}
	}
	verify.Equal(t, origin.got(), "", "the peer")
	eventually(t, "nothing is open", func() bool { return p.inflight() == 0 && p.openHTTP3Streams() == 0 })
	p.expectNothingCounted()
	r := c.request(http3WebSocket, false)
	verify.Equal(t, r.nextHead().status, "200", "status of a tunnel")
}

// Bodies of another length than announced, and malformed trailer sections: the request does not get
// through, whatever of it is buffered.
func TestHTTP3MalformedBodies(t *testing.T) {
	t.Parallel()
	with := func(length string) []byte { return h3Head(http3Post + "|content-length=" + length) }
	long := strings.Repeat("x", 50_000)
	type test struct {
		code  own.ErrorCode
		parts [][]byte
	}
	eachCase(t, map[string]test{
		"more than nothing announced":      {own.MessageError, [][]byte{slices.Concat(with("0"), h3Data("x"))}},
		"more than announced":              {own.MessageError, [][]byte{with("4"), h3Data("body+")}},
		"more than announced, in parts":    {own.MessageError, [][]byte{with("4"), h3Data("body"), h3Data("+")}},
		"more than nothing":                {own.MessageError, [][]byte{with("4"), h3Data("bo"), h3Data("dies")}},
		"much more than announced":         {own.MessageError, [][]byte{with("4"), h3Data(long)}},
		"more than a long body":            {own.MessageError, [][]byte{with("40000"), h3Data(long)}},
		"more than a long body, in parts":  {own.MessageError, [][]byte{with("40000"), h3Data(long[:30_000]), h3Data(long[:20_000])}},
		"less than announced":              {own.MessageError, [][]byte{with("4"), h3Data("bod")}},
		"less than a long body":            {own.MessageError, [][]byte{with("60000"), h3Data(long)}},
		"less, before a trailer section":   {own.MessageError, [][]byte{with("4"), h3Data("bod"), h3Head("x=1")}},
		"no byte of what is announced":     {own.MessageError, [][]byte{with("4"), h3Data("")}},
		"a pseudo-header field":            {own.MessageError, [][]byte{h3Head(http3Post), h3Data("body"), h3Head(":path=/")}},
		"a pseudo-header field of answers": {own.MessageError, [][]byte{h3Head(http3Post), h3Data("body"), h3Head(":status=200")}},
		"upper case":                       {own.MessageError, [][]byte{h3Head(http3Post), h3Data("body"), h3Head("X=1")}},
		"a line end":                       {own.MessageError, [][]byte{h3Head(http3Post), h3Data("body"), h3Head("x=1\r\ny: 2")}},
		"a field of the connection":        {own.MessageError, [][]byte{h3Head(http3Post), h3Data("body"), h3Head("connection=close")}},
		"a long trailer section":           {own.MessageError, [][]byte{h3Head(http3Post), h3Data("body"), h3Head("x=" + long[:20_000])}},
		"malformed, behind a length":       {own.MessageError, [][]byte{with("4"), h3Data("body"), h3Head(":path=/")}},

		"no frame":            {own.RequestIncomplete, nil},
		"only unknown frames": {own.RequestIncomplete, [][]byte{h3Frame(0x21, nil), h3Frame(0x40, []byte("x"))}},
	}, func(t *testing.T, test test) {
		origin := startOrigin(t, answering(okResponse))
		p, address := startHTTP3Proxy(t, Options{}, origin.address())
		c := dialHTTP3(t, address)
		r := c.open(test.parts...)
		r.CloseWrite()
		a := r.response()
		verify.That(t, a.reset == test.code && a.status == "", "got %+v, want a reset with %#x", a, uint64(test.code))
		eventually(t, "nothing is open", func() bool { return p.inflight() == 0 && p.openHTTP3Streams() == 0 })
		verify.That(t, !strings.Contains(origin.got(), "\r\n0\r\n"), "the peer got a whole request: %.300q", origin.got())
		p.expectNothingCounted()
		c.expectAlive()
		verify.That(t, p.http3.resetsSent.Load() == 1 && p.http3.errors.Load() == 0, "%d resets, %d faults", p.http3.resetsSent.Load(), p.http3.errors.Load())
	})
}

// openHTTP3Streams returns how many requests of HTTP/3 are served.
func (p *testProxy) openHTTP3Streams() (n int) {
	for _, h := range connections[*http3ClientConn](p.Server) {
		h.mu.Lock()
		n += len(h.open)
		h.mu.Unlock()
	}
	return n
}

// openTunnel opens a tunnel to an echoingWebSocket, and reads its greeting.
func (c *http3Frames) openTunnel() *http3Request {
	c.t.Helper()
	r := c.request(http3WebSocket, false)
	verify.Equal(c.t, r.nextHead().status, "200", "status of a tunnel")
	r.expectBytes("hello ")
	return r
}

// expectBytes reads DATA frames until they have brought want.
func (r *http3Request) expectBytes(want string) {
	r.t.Helper()
	for got := ""; got != want; {
		got += string(r.next(0))
		verify.Require(r.t, strings.HasPrefix(want, got), "got %q, want %q", got, want)
	}
}

// What ends a tunnel early ends both sides.
func TestHTTP3TunnelBreaks(t *testing.T) {
	t.Parallel()
	short := 200 * time.Millisecond
	type test struct {
		timeouts route.Timeouts
		end      func(c *http3Frames, r *http3Request)
		reset    own.ErrorCode // 0: none is seen
		fault    own.ErrorCode // of the connection
	}
	eachCase(t, map[string]test{
		"client resets":             {end: func(_ *http3Frames, r *http3Request) { r.Reset(uint64(own.RequestCancelled)) }, reset: own.RequestCancelled},
		"client takes nothing more": {end: func(_ *http3Frames, r *http3Request) { r.StopSending(uint64(own.RequestCancelled)) }},
		"client takes nothing more after its end": {end: func(_ *http3Frames, r *http3Request) {
			r.CloseWrite()
			r.expectBytes("bye ")
			r.StopSending(uint64(own.RequestCancelled))
		}},
		"client takes nothing more, and sends": {end: func(_ *http3Frames, r *http3Request) {
			r.StopSending(uint64(own.RequestCancelled))
			r.send(h3Data("again"))
		}},
		"client's connection ends":    {end: func(c *http3Frames, _ *http3Request) { c.conn.Abort(nil) }},
		"peer resets":                 {end: func(_ *http3Frames, r *http3Request) { r.send(h3Data("reset")) }, reset: own.RequestCancelled},
		"idle":                        {timeouts: route.Timeouts{Tunnel: short}, end: func(*http3Frames, *http3Request) {}, reset: own.RequestCancelled},
		"idle after the client's end": {timeouts: route.Timeouts{Idle: short}, end: func(_ *http3Frames, r *http3Request) { r.CloseWrite() }, reset: own.RequestCancelled},
		"a trailer section":           {end: func(_ *http3Frames, r *http3Request) { r.send(h3Head("x=1")) }, fault: own.FrameUnexpected},
		"SETTINGS":                    {end: func(_ *http3Frames, r *http3Request) { r.send(h3Frame(4, nil)) }, fault: own.FrameUnexpected},
		"half a frame":                {end: func(_ *http3Frames, r *http3Request) { r.send([]byte{0, 5, 'x'}); r.CloseWrite() }, fault: own.FrameError},
	}, func(t *testing.T, test test) {
		over := make(chan struct{})
		origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
			if r.URL.Path != "/ws" {
				return c.write(okResponse)
			}
			c.write(switching(r.Header.Get("Sec-WebSocket-Key")) + "hello ")
			b := make([]byte, 5)
			switch n, _ := io.ReadFull(c.Reader, b); string(b[:n]) {
			case "reset":
				c.Conn.(*net.TCPConn).SetLinger(0)
				return false
			case "":
				c.write("bye ")
			case "again": // it sends until that fails
				for c.write("hello") {
				}
			}
			<-over
			return false
		}))
		defer close(over)
		p, address := startHTTP3Proxy(t, Options{}, origin.address())
		p.setService(route.Service{Timeouts: test.timeouts, Retry: route.Retry{Attempts: 1}})
		c := dialHTTP3(t, address)
		r := c.openTunnel()
		test.end(c, r)
		if test.reset != 0 {
			got := r.response()
			verify.That(t, got.reset == test.reset, "got %+v, want a reset with %#x", got, uint64(test.reset))
		}
		if test.fault != 0 {
			c.expectEnd(test.fault)
		}
		eventually(t, "the tunnel has ended", func() bool { return p.inflight() == 0 && p.openHTTP3Streams() == 0 })
		p.expectNothingCounted()
		if test.fault == 0 && !strings.HasSuffix(t.Name(), "connection_ends") {
			c.expectAlive()
		}
	})
}
