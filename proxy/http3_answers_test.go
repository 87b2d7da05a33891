package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	own "sluice/proxy/http3"
	"sluice/route"
	"sluice/test/verify"
)

// Responses reach the client as the peer has sent them. TestCompresses and others that use all
// fronts have other bodies, and TestReservedNames the fields.
func TestHTTP3Responses(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
		const head = "HTTP/1.1 200 OK\r\n"
		switch r.URL.Path {
		case "/204":
			return c.write("HTTP/1.1 204 No Content\r\n\r\n")
		case "/head":
			return c.write(head + "Content-Length: 5\r\n\r\n")
		case "/hints":
			return c.write("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: b\r\n\r\n" + head + "Content-Length: 2\r\n\r\nok")
		case "/trailer":
			return c.write(head + "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\nContent-Length: 9\r\nX-Sluice-Reason: evil\r\n\r\n")
		case "/only-trailer":
			return c.write(head + "Transfer-Encoding: chunked\r\n\r\n0\r\nX-T: 1\r\n\r\n")
		case "/cut":
			c.write(head + "Content-Length: 10\r\n\r\nok")
			return false
		}
		return c.write("HTTP/1.1 418 I'm a teapot\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 3\r\n\r\ntea")
	}))
	p, address := startHTTP3Proxy(t, Options{}, origin.address())
	c := dialHTTP3(t, address)
	const trailers = "|te=trailers"
	for _, test := range []struct {
		fields string
		want   http3Response
		header string // "name=value"
	}{
		{http3GetOf("/204"), http3Response{status: "204"}, ""},
		{strings.Replace(http3GetOf("/head"), "GET", "HEAD", 1), http3Response{status: "200"}, "content-length=5"},
		{http3GetOf("/hints"), http3Response{interim: []string{"103", "103"}, status: "200", body: "ok"}, ""},
		{http3GetOf("/trailer"), http3Response{status: "200", body: "ok"}, "transfer-encoding="},
		{http3GetOf("/trailer") + trailers, http3Response{status: "200", body: "ok", trailer: map[string]string{"x-t": "1"}}, ""},
		{http3GetOf("/only-trailer"), http3Response{status: "200"}, ""},
		{http3GetOf("/only-trailer") + trailers, http3Response{status: "200", trailer: map[string]string{"x-t": "1"}}, ""},
		{http3GetOf("/other"), http3Response{status: "418", body: "tea"}, "set-cookie=a, b"},
	} {
		a := c.ask(test.fields)
		what := fmt.Sprintf("%s: got %.500s", test.fields, fmt.Sprintf("%+v", a))
		verify.That(t, a.ended && a.reset == 0 && a.err == nil && a.status == test.want.status && a.body == test.want.body, "%s", what)
		verify.That(t, fmt.Sprint(a.interim) == fmt.Sprint(test.want.interim) && fmt.Sprint(a.trailer) == fmt.Sprint(test.want.trailer), "%s", what)
		if name, value, ok := strings.Cut(test.header, "="); ok {
			verify.Equal(t, a.header[name], value, "%s: %s", test.fields, name)
		}
	}
	a := c.ask(http3GetOf("/cut"))
	// Which may overtake the head.
	verify.That(t, a.reset == own.InternalError && !a.ended, "a response that is cut: %+v", a)
	c.expectAlive()
	eventually(t, "nothing is open", func() bool { return p.inflight() == 0 && p.openHTTP3Streams() == 0 })
}

// Answers of sluice's own, to requests whose body is not read.
func TestHTTP3Refusals(t *testing.T) {
	t.Parallel()
	p, address := startHTTP3Proxy(t, Options{Limits: Limits{BodyBytes: 10}})
	c := dialHTTP3(t, address)
	for _, test := range []struct{ fields, status, reason string }{
		{http3Post + "|content-length=1000", "413", "body_too_long"},
		{http3Post + "|content-length=5", "503", "no_peers"},
		{http3Get, "503", "no_peers"},
		{strings.Replace(http3Get, "GET", "HEAD", 1), "503", "no_peers"},
	} {
		r := c.request(test.fields, false)
		if strings.HasSuffix(test.fields, "=5") {
			r.send(h3Data("12345"))
			r.CloseWrite()
		}
		a := r.response()
		verify.That(t, a.status == test.status && a.header["x-sluice-reason"] == test.reason && a.ended && a.reset == 0, "%s: got %+v", test.fields, a)
		verify.That(t, (a.body == "") == strings.Contains(test.fields, "HEAD"), "%s: body %q", test.fields, a.body)
		r.send(h3Data(strings.Repeat("x", 100))) // on its way
	}
	eventually(t, "nothing is open", func() bool { return p.openHTTP3Streams() == 0 })
	verify.Equal(t, p.http3.resetsSent.Load(), uint64(0), "resets")
}

// A call of gRPC has its status in the trailer section, or in the head.
func TestHTTP3GRPC(t *testing.T) {
	t.Parallel()
	o := startGRPCOrigin(t)
	p := startProxyToH2C(t, o.address)
	p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 3}})
	c := dialHTTP3(t, p.serveHTTP3(ListenerOptions{Name: "h3"}))
	message := func(request proto.Message) string {
		b := verify.Result(proto.Marshal(request)).Must(t)
		return string(append([]byte{0, 0, 0, byte(len(b) >> 8), byte(len(b))}, b...))
	}
	call := strings.TrimSuffix(http3Post, "/") + "/grpc.testing.TestService/UnaryCall" + grpcFields
	for _, test := range []struct{ request, status string }{
		{message(unary(10, 10)), "0"},
		{message(unary(10_000, 100)), "0"},
		{message(&grpc_testing.SimpleRequest{ResponseStatus: &grpc_testing.EchoStatus{Code: 7}}), "7"},
		{"\x00\x00\x00\x00\x05", "13"}, // the message is cut
	} {
		r := c.request(call, false)
		r.send(h3Data(test.request))
		r.CloseWrite()
		a := r.response()
		got := a.trailer["grpc-status"] + a.header["grpc-status"]
		verify.That(t, a.status == "200" && a.ended && got == test.status, "%.30q: got %+v", test.request, a)
	}
	a := c.ask(call + "|grpc-timeout=1n")
	verify.That(t, a.status == "200" && a.header["grpc-status"] == "4", "got %+v", a)
}

// A unary call of gRPC that a peer has not processed is sent again, although it announces no
// length.
func TestHTTP3UnprocessedCallIsSentAgain(t *testing.T) {
	t.Parallel()
	var refused atomic.Bool
	var got atomic.Value
	p := startProxyToH2C(t, startFramePeerWith(t, framePeerOptions{
		answer: func(p *framePeer, stream uint32) {
			if refused.CompareAndSwap(false, true) {
				p.WriteRSTStream(stream, xhttp2.ErrCodeRefusedStream)
			}
		},
		frame: func(p *framePeer, frame xhttp2.Frame) {
			if f, ok := frame.(*xhttp2.DataFrame); ok && f.StreamEnded() {
				got.Store(string(f.Data()))
				p.headers(f.StreamID, true, ":status", "200", "grpc-status", "0")
			}
		},
	}))
	p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 1}})
	c := dialHTTP3(t, p.serveHTTP3(ListenerOptions{Name: "h3"}))
	for _, length := range []int{5, 1000} {
		refused.Store(false)
		message := strings.Repeat("m", length)
		r := c.open()
		// All arrives at once.
		r.Write(append(h3Head(http3Post+grpcFields), h3Data(message)...))
		r.CloseWrite()
		a := r.response()
		verify.That(t, a.status == "200" && a.header["grpc-status"] == "0" && got.Load() == message, "%d bytes: got %+v, the peer %q", length, a, got.Load())
	}
	p.expectNothingCounted()
}

// A client that gives a request up releases the peer, however it says so.
func TestHTTP3CancelReleasesThePeer(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]func(c *http3Frames, r *http3Request){
		"both directions": func(_ *http3Frames, r *http3Request) {
			r.Reset(uint64(own.RequestCancelled))
			r.StopSending(uint64(own.RequestCancelled))
		},
		"the response":   func(_ *http3Frames, r *http3Request) { r.StopSending(uint64(own.RequestCancelled)) },
		"the request":    func(_ *http3Frames, r *http3Request) { r.Reset(uint64(own.RequestCancelled)) },
		"the connection": func(c *http3Frames, _ *http3Request) { c.conn.Abort(nil) },
	}, func(t *testing.T, cancel func(*http3Frames, *http3Request)) {
		arrived := make(chan struct{})
		ended := make(chan struct{})
		origin := startOrigin(t, withHead(func(c *originConn, _ *http.Request) bool {
			close(arrived)
			io.Copy(io.Discard, c.Conn)
			close(ended)
			return false
		}))
		p, address := startHTTP3Proxy(t, Options{Timeouts: Timeouts{Body: time.Hour, Write: time.Hour}}, origin.address())
		p.setService(route.Service{Timeouts: route.Timeouts{ResponseHeader: time.Hour, Idle: time.Hour}})
		c := dialHTTP3(t, address)
		r := c.request(http3Post, false)
		r.send(h3Data("a part"))
		<-arrived
		cancel(c, r)
		<-ended
		eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 && p.openHTTP3Streams() == 0 })
		p.expectNothingCounted()
		if t.Name() != "TestHTTP3CancelReleasesThePeer/the_connection" {
			verify.Equal(t, p.http3.resetsReceived.Load(), uint64(1), "resets of the client")
			verify.Equal(t, p.http3.errors.Load(), uint64(0), "faults")
		} else {
			p.expectNothingLeft(t, 0)
		}
	})
}
