package proxy

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	own "sluice/proxy/http3"
	"sluice/route"
	"sluice/test/verify"
)

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
