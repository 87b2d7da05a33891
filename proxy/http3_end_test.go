package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/certificates"
	own "sluice/proxy/http3"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// startGatedOrigin starts a peer that answers once proceed was called. It must be, also by a test
// that fails.
func startGatedOrigin(t *testing.T) (o *origin, proceed func()) {
	gate := make(chan struct{})
	return startOrigin(t, afterRequest(func(c *originConn) bool {
		<-gate
		return c.write(okResponse)
	})), sync.OnceFunc(func() { close(gate) })
}

// Shutdown loses no request: those that were sent before the client knew are served, later ones are
// rejected, and all answers arrive.
func TestHTTP3Shutdown(t *testing.T) {
	t.Parallel()
	origin, proceed := startGatedOrigin(t)
	defer proceed()
	p := newUnmanagedProxy(t, Options{}, origin.address())
	address := p.serveHTTP3(ListenerOptions{Name: "h3"})
	c, idle := dialHTTP3(t, address), dialHTTP3(t, address)
	control := c.serverFrames()
	first := c.request(http3Get, true)
	eventually(t, "the request is in flight", func() bool { return p.inflight() == 1 && p.Connections() == 2 })
	ended := p.shutDown(t.Context(), 0)
	verify.Equal(t, c.readGoAway(control), 1<<62-4, "the first GOAWAY")
	second := c.request(http3Post, false) // sent before it arrived
	second.send(h3Data("body"))
	second.CloseWrite()
	eventually(t, "both are in flight", func() bool { return p.inflight() == 2 })
	p.skip(http2GoAwayTimeout + http2GoAwaySettle)
	verify.Equal(t, c.readGoAway(control), uint64(8), "the second GOAWAY")
	// The client may repeat them elsewhere, and has done nothing wrong.
	for range 2 * http2Resets {
		late := c.request(http3Post, false)
		a := late.response()
		verify.Require(t, a.reset == own.RequestRejected, "a later request: got %+v", a)
	}
	verify.Equal(t, p.inflight(), 2, "in flight")
	proceed()
	for _, r := range []*http3Request{first, second} {
		a := r.response()
		verify.That(t, a.status == "200" && a.body == "ok" && a.ended, "got %+v", a)
	}
	c.expectEnd(own.NoError)
	idle.expectEnd(own.NoError)
	verify.Succeeds(t, <-ended)
	p.pool.Close()
}

// What is left when the time of Shutdown is over ends with an error.
func TestHTTP3ShutdownIsCut(t *testing.T) {
	t.Parallel()
	origin, proceed := startGatedOrigin(t)
	defer proceed()
	p := newUnmanagedProxy(t, Options{}, origin.address())
	c := dialHTTP3(t, p.serveHTTP3(ListenerOptions{Name: "h3"}))
	r := c.request(http3Get, true)
	eventually(t, "the request is in flight", func() bool { return p.inflight() == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	ended := p.shutDown(ctx, 0)
	cancel()
	err := <-ended
	verify.That(t, errors.Is(err, context.Canceled), "shutdown: %v", err)
	a := r.response()
	verify.That(t, a.err != nil || a.status == "503" || a.reset != 0, "got %+v", a)
	c.expectEnd(own.InternalError)
	verify.Equal(t, p.inflight(), 0, "in flight")
	p.pool.Close()
}

// Drain serves what was sent before its GOAWAY, and cuts what is left after its time with an
// answer.
func TestHTTP3Drain(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]bool{"served": false, "cut": true}, func(t *testing.T, cut bool) {
		origin, proceed := startGatedOrigin(t)
		defer proceed()
		p := startProxy(t, Options{}, origin.address())
		address := p.serveHTTP3(ListenerOptions{Name: "drains"})
		other := dialHTTP3(t, p.serveHTTP3(ListenerOptions{Name: "stays"}))
		c := dialHTTP3(t, address)
		control := c.serverFrames()
		r := c.request(http3Get, true)
		upload := c.request(http3Post, false)
		upload.send(h3Data("a part"))
		eventually(t, "both are in flight", func() bool { return p.inflight() == 2 })
		grace := patience
		if cut {
			grace = 50 * time.Millisecond
		}
		p.drainHTTP3("drains", grace)
		if cut {
			for _, r := range []*http3Request{r, upload} {
				a := r.response()
				verify.That(t, a.status == "503" && a.header["x-sluice-reason"] == "drain_timeout" && a.ended, "got %+v", a)
			}
			c.expectEnd(own.NoError)
			p.expectNothingCounted()
			proceed()
		} else {
			verify.Equal(t, c.readGoAway(control), 1<<62-4, "the first GOAWAY")
			p.skip(http2GoAwayTimeout + http2GoAwaySettle)
			verify.Equal(t, c.readGoAway(control), uint64(8), "the second GOAWAY")
			proceed()
			upload.CloseWrite()
			for _, r := range []*http3Request{r, upload} {
				a := r.response()
				verify.That(t, a.status == "200" && a.body == "ok" && a.ended, "got %+v", a)
			}
			c.expectEnd(own.NoError)
		}
		other.expectAlive()
	})
}

// drainHTTP3 drains the listener of a name.
func (p *testProxy) drainHTTP3(name string, grace time.Duration) {
	for _, h := range connections[*http3ClientConn](p.Server) {
		if l := h.at(); l.Name == name {
			p.Drain(l.Listener, 0, grace)
			return
		}
	}
	p.t.Fatalf("no connection to %s", name)
}

// Connections that reach a limit end after two GOAWAYs, and what was sent before is served.
func TestHTTP3LimitsOfConnections(t *testing.T) {
	t.Parallel()
	const age = time.Hour
	type test struct {
		limits socket.ConnectionLimits
		ended  EndedConnections
	}
	eachCase(t, map[string]test{
		"requests": {socket.ConnectionLimits{MaxRequests: 2}, EndedConnections{MaxRequests: 1}},
		"age":      {socket.ConnectionLimits{MaxAge: age}, EndedConnections{MaxAge: 1}},
	}, func(t *testing.T, test test) {
		p, address := startHTTP3Proxy(t, Options{Connections: test.limits, Timeouts: Timeouts{Idle: 10 * age}}, answersOK(t))
		c := dialHTTP3(t, address)
		control := c.serverFrames()
		c.expectAlive()
		p.skip(age + age/4) // with the part of the age that is at random
		c.expectAlive()
		verify.Equal(t, c.readGoAway(control), 1<<62-4, "the first GOAWAY")
		c.expectAlive() // it was sent before the client knew
		p.skip(http2GoAwayTimeout + http2GoAwaySettle)
		verify.Equal(t, c.readGoAway(control), uint64(12), "the second GOAWAY")
		a := c.ask(http3Get)
		verify.That(t, a.reset == own.RequestRejected, "a later request: got %+v", a)
		p.skip(http2GoAwayTimeout + http2GoAwaySettle)
		c.expectEnd(own.NoError)
		verify.Equal(t, p.Stats().Ended, test.ended, "connections that have ended at a limit")
	})
}

// A client whose certificate is revoked gets no answers any more, and no new connection; its open
// one ends with what is in progress.
func TestHTTP3RevokedClient(t *testing.T) {
	t.Parallel()
	dir, a := t.TempDir(), testcert.NewAuthority(t, "ca.example")
	_, _, pair := a.Chain(t, "/web", func(c *x509.Certificate) { c.SerialNumber = big.NewInt(7) })
	files := certificates.Files{CA: filepath.Join(dir, "ca.pem"), CRL: filepath.Join(dir, "crl.pem")}
	verify.NoError(t, os.WriteFile(files.CA, a.Root, 0o600))
	verify.NoError(t, os.WriteFile(files.CRL, a.CRL(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), []int64{7}), 0o600))
	contents := verify.Result(certificates.Read(files)).Must(t)
	var lists atomic.Pointer[certificates.Revocations]
	arrived := make(chan string, 10)
	origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
		arrived <- r.Header.Get("X-Forwarded-Client-Cert")
		if r.URL.Path == "/" {
			return c.write(okResponse)
		}
		io.Copy(io.Discard, c.Conn)
		return false
	}))
	p := startProxy(t, Options{}, origin.address())
	address := p.serveHTTP3(ListenerOptions{Name: "h3", Revocations: lists.Load, TLS: &tls.Config{
		Certificates: []tls.Certificate{certificate()}, ClientCAs: contents.Trusted, ClientAuth: tls.RequireAndVerifyClientCert,
	}})
	config := quicClient()
	config.TLSConfig.Certificates = []tls.Certificate{pair}
	dial := func() *http3Frames { return verify.Result(dialQUIC(t, "127.0.0.1", address, config)).Must(t) }

	c := dial()
	c.expectAlive()
	verify.Contains(t, <-arrived, "Hash=", "the certificate that the peer got")
	held := c.request(http3GetOf("/held"), true)
	<-arrived
	lists.Store(contents.Revocations)
	r := c.ask(http3Get)
	verify.That(t, r.status == "403" && r.header["x-sluice-reason"] == "certificate_revoked", "got %+v", r)
	p.EndRevoked()
	r = held.response()
	verify.That(t, r.status == "403" && r.header["x-sluice-reason"] == "certificate_revoked", "got %+v", r)
	c.expectEnd(own.NoError)
	verify.Equal(t, len(arrived), 0, "requests that the peer got later")

	dial().expectEnd(own.NoError) // its handshake has asked no lists
	eventually(t, "no connection is left", func() bool { return p.Connections() == 0 })
}

// A client that stops within its request gets a 408, wherever it stops, and holds nothing until
// then but its stream.
func TestHTTP3RequestsThatStop(t *testing.T) {
	t.Parallel()
	const long, never = time.Hour, 1000 * time.Hour
	long1000 := h3Head(http3Post + "|content-length=1000")
	long100000 := h3Head(http3Post + "|content-length=100000")
	type test struct {
		reason string
		parts  [][]byte
	}
	eachCase(t, map[string]test{
		"nothing":                          {"head_timeout", nil},
		"a part of a type":                 {"head_timeout", [][]byte{{0x40}}},
		"a part of a length":               {"head_timeout", [][]byte{{1, 0x40}}},
		"a frame without its payload":      {"head_timeout", [][]byte{{1, 20}}},
		"half a head":                      {"head_timeout", [][]byte{h3Head(http3Get)[:5]}},
		"half an unknown frame":            {"head_timeout", [][]byte{h3Frame(0x21, make([]byte, 100))[:50]}},
		"unknown frames":                   {"head_timeout", [][]byte{h3Frame(0x21, make([]byte, 100))}},
		"a head and no body":               {"body_timeout", [][]byte{long1000}},
		"a DATA frame without a byte":      {"body_timeout", [][]byte{long1000, {0, 4}}},
		"half a DATA frame":                {"body_timeout", [][]byte{long1000, h3Data(strings.Repeat("x", 1000))[:500]}},
		"half a small body":                {"body_timeout", [][]byte{long1000, h3Data("x")}},
		"half a DATA frame of a long body": {"body_timeout", [][]byte{long100000, h3Data(strings.Repeat("x", 100_000))[:50_000]}},
		"half a long body":                 {"body_timeout", [][]byte{long100000, h3Data(strings.Repeat("x", 50_000))}},
		"half a body without a length":     {"body_timeout", [][]byte{h3Head(http3Post), h3Data(strings.Repeat("x", 50_000))[:40_000]}},
		"half a trailer section":           {"body_timeout", [][]byte{h3Head(http3Post), h3Data("x"), h3Head("x=1")[:4]}},
		"no end":                           {"body_timeout", [][]byte{h3Head(http3Post), h3Data("x"), h3Head("x=1")}},
		"unknown frames, in the body":      {"body_timeout", [][]byte{h3Head(http3Post), h3Data("x"), h3Frame(0x21, make([]byte, 100))}},
	}, func(t *testing.T, test test) {
		timeouts := Timeouts{Head: long, Body: never, Write: never, Idle: never}
		if test.reason == "body_timeout" {
			timeouts.Head, timeouts.Body = never, long
		}
		p, address := startHTTP3Proxy(t, Options{Timeouts: timeouts}, startOrigin(t, hanging).address())
		p.setService(route.Service{Timeouts: route.Timeouts{ResponseHeader: never, Idle: never}})
		c := dialHTTP3(t, address)
		r := c.open(test.parts...)
		if len(test.parts) == 0 {
			c.expectFirstOpens() // the stream above opens this one too
		}
		eventually(t, "sluice waits for the client", func() bool { return p.waitsForHTTP3(long) })
		a := p.skipUntilAnswered(long, r)
		verify.That(t, a.status == "408" && a.header["x-sluice-reason"] == test.reason && a.ended, "got %+v", a)
		p.expectNothingCounted()
	})
}

// expectFirstOpens opens another stream, and resets it.
func (c *http3Frames) expectFirstOpens() {
	r := c.open([]byte{1})
	r.Reset(uint64(own.RequestCancelled))
}

// skipUntilAnswered lets time pass in steps, until a request is answered.
func (p *testProxy) skipUntilAnswered(step time.Duration, r *http3Request) http3Response {
	p.t.Helper()
	answer := make(chan http3Response, 1)
	go func() { answer <- r.response() }()
	for {
		select {
		case a := <-answer:
			return a
		default:
			p.skip(step)
		}
	}
}

// waitsForHTTP3 reports whether a stream of the only client waits for it for at most a time.
func (p *testProxy) waitsForHTTP3(most time.Duration) bool {
	return p.hasHTTP3Stream(func(s *http3Stream) bool {
		deadline := s.client.Entry.Deadline.Load()
		return deadline != 0 && deadline <= p.sweeper.Exact()+int64(most)
	})
}

// hasHTTP3Stream reports whether something holds of an open stream.
func (p *testProxy) hasHTTP3Stream(of func(*http3Stream) bool) (found bool) {
	for _, h := range connections[*http3ClientConn](p.Server) {
		h.mu.Lock()
		for s := range h.open {
			found = found || of(s)
		}
		h.mu.Unlock()
	}
	return found
}

// A client that takes nothing of a response is cut after the write timeout, and the peer is
// released.
func TestHTTP3ClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	const long = time.Hour
	origin := startOrigin(t, afterRequest(func(c *originConn) bool {
		c.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for c.write(fmt.Sprintf("4000\r\n%s\r\n", strings.Repeat("x", 0x4000))) {
		}
		return false
	}))
	p, address := startHTTP3Proxy(t, Options{Timeouts: Timeouts{Write: long, Idle: 4 * long}}, origin.address())
	p.setService(route.Service{Timeouts: route.Timeouts{Idle: 4 * long}})
	config := quicClient()
	config.MaxStreamReadBufferSize = 10_000
	c := verify.Result(dialQUIC(t, "127.0.0.1", address, config)).Must(t)
	c.control = c.openUni([]byte{0}, h3Frame(4, nil))
	r := c.request(http3Get, true)
	verify.Equal(t, r.nextHead().status, "200", "status")
	eventually(t, "sluice waits for the client", func() bool { return p.waitsToWriteHTTP3() })
	other := c.ask(strings.Replace(http3Get, "GET", "HEAD", 1)) // on its own stream
	verify.Equal(t, other.status, "200", "status of another request")
	eventually(t, "the peer is released", func() bool {
		p.skip(long)
		return p.inflight() == 0
	})
	a := r.response()
	verify.That(t, a.reset == own.RequestCancelled, "got a reset with %#x, %v", uint64(a.reset), a.err)
	verify.That(t, p.http3.resetsReceived.Load() == 0 && p.http3.resetsSent.Load() == 1, "resets: %d of the client, %d", p.http3.resetsReceived.Load(), p.http3.resetsSent.Load())
	p.expectNothingCounted()
}

// waitsToWriteHTTP3 reports whether a stream of the only client waits for it to take bytes.
func (p *testProxy) waitsToWriteHTTP3() bool {
	return p.hasHTTP3Stream(func(s *http3Stream) bool { return s.client.Entry.WriteDeadline.Load() != 0 })
}

// One that takes a little now and then is not, however long it takes for one piece.
func TestHTTP3SlowClientIsNotCut(t *testing.T) {
	t.Parallel()
	const length = 200_000
	p, address := startHTTP3Proxy(t, Options{Timeouts: Timeouts{Write: time.Minute, Idle: time.Hour}}, startLongOrigin(t, length).address())
	config := quicClient()
	config.MaxStreamReadBufferSize = 1024
	c := verify.Result(dialQUIC(t, "127.0.0.1", address, config)).Must(t)
	r := c.request(http3Get, true)
	r.in = bufio.NewReaderSize(r.Stream, 64)
	verify.Equal(t, r.nextHead().status, "200", "status")
	left := length
	for range 10 { // a piece takes longer than the timeout
		p.skip(50 * time.Second)
		// More than the client had before.
		n := verify.Result(io.CopyN(io.Discard, r.in, 3000)).Must(t)
		left -= int(n)
	}
	for left > -5 { // with the header of DATA frames
		n, err := io.CopyN(io.Discard, r.in, 10_000)
		if left -= int(n); err == io.EOF {
			break
		}
		verify.Require(t, err == nil, "%d bytes are left: %v", left, err)
	}
	verify.That(t, left <= 0, "%d bytes are missing", left)
}

// An idle connection ends with two GOAWAYs, and without an error.
func TestHTTP3IdleConnection(t *testing.T) {
	t.Parallel()
	const idle = time.Hour
	p, address := startHTTP3Proxy(t, Options{Timeouts: Timeouts{Idle: idle}}, answersOK(t))
	for _, requests := range []int{0, 3} {
		c := dialHTTP3(t, address)
		for range requests {
			c.expectAlive()
		}
		eventually(t, "the streams have ended", func() bool { return p.Connections() == 1 && p.openHTTP3Streams() == 0 })
		p.skip(idle / 2) // from the last request, nothing ends
		verify.Equal(t, p.Connections(), 1, "connections after half the time")
		control := c.serverFrames()
		go func() {
			for p.Connections() > 0 {
				p.skip(idle / 4)
			}
		}()
		verify.Equal(t, c.readGoAway(control), 1<<62-4, "the first GOAWAY")
		verify.Equal(t, c.readGoAway(control), uint64(4*requests), "the second GOAWAY")
		c.expectEnd(own.NoError)
		eventually(t, "nothing is left", func() bool { return p.Connections() == 0 && p.admission.total() == 0 })
	}
	verify.Equal(t, p.http3.goAways.Load(), uint64(2), "GOAWAYs that were counted")
}
