package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/certificates"
	own "sluice/proxy/http3"
	"sluice/proxy/socket"
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
