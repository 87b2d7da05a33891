package proxy

import (
	"slices"
	"strings"
	"testing"

	own "sluice/proxy/http3"
	"sluice/test/verify"
)

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
