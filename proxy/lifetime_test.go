package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/proxy/socket"
	"sluice/test/verify"
)

// exchangeOn sends a request on a connection of its own, and returns whether the response
// announces the end of it.
func exchangeOn(t *testing.T, w io.Writer, r *bufio.Reader, path string) (status int, closes bool) {
	t.Helper()
	io.WriteString(w, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
	response := verify.Result(http.ReadResponse(r, nil)).Must(t)
	_, err := io.ReadAll(response.Body)
	verify.NoError(t, err)
	return response.StatusCode, response.Close
}

// The request that reaches the limit is the last one of its connection, also if sluice
// answers it.
func TestMaxRequestsOfAConnection(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Connections: socket.ConnectionLimits{MaxRequests: 3}}, answersOK(t))
	for i, last := range []string{"/", "*"} { // "*" is malformed for GET
		conn := p.dial()
		reader := bufio.NewReader(conn)
		for n := range 3 {
			path := "/"
			if n == 2 {
				path = last
			}
			status, closes := exchangeOn(t, conn, reader, path)
			verify.That(t, closes == (n == 2) && (status == 200) == (path == "/"), "request %d: status %d, the connection ends: %v", n+1, status, closes)
		}
		expectRest(t, reader, "")
		verify.Equal(t, p.Stats().Ended, (EndedConnections{MaxRequests: uint64(i) + 1}), "p.Stats().Ended")
	}
}

// A request in flight when the age is reached is finished, and the next one is the last.
func TestMaxAgeOfAConnection(t *testing.T) {
	t.Parallel()
	origin := startHeldOrigin(t)
	const age = time.Hour
	p := startProxy(t, Options{
		Connections: socket.ConnectionLimits{MaxAge: age},
		Timeouts:    Timeouts{Idle: 2 * age, Body: 2 * age, Write: 2 * age, Head: 2 * age},
	}, origin.address())
	service := *p.service
	service.Timeouts.ResponseHeader, service.Timeouts.Idle = 2*age, 2*age
	p.setService(service)
	conn := p.dial()
	reader := bufio.NewReader(conn)
	answer := func(pass time.Duration) (closes bool) {
		go func() {
			<-origin.arrived
			p.sweeper.Advance(pass)
			origin.proceed <- struct{}{}
		}()
		status, closes := exchangeOn(t, conn, reader, "/held")
		verify.Equal(t, status, 200, "status")
		return closes
	}
	verify.That(t, !answer(0), "the first response ends the connection")
	verify.That(t, !answer(age), "a connection that was young when the request arrived ends with its response")
	verify.That(t, answer(0), "an old connection stays open")
	expectRest(t, reader, "")
	verify.Equal(t, p.Stats().Ended, (EndedConnections{MaxAge: 1}), "p.Stats().Ended")
}

// Clients that keep their connections lose no request, and none is served twice.
func TestLimitedConnectionsLoseNoRequest(t *testing.T) {
	t.Parallel()
	var served atomic.Int64
	origin := startOrigin(t, afterRequest(func(c *originConn) bool {
		served.Add(1)
		return c.write(okResponse)
	}))
	p := startProxy(t, Options{Connections: socket.ConnectionLimits{MaxRequests: 10}}, origin.address())
	of3 := "https://" + p.serveHTTP3(ListenerOptions{Name: "h3"})
	for name, test := range map[string]struct {
		client *http.Client
		url    string
		body   func() io.Reader
	}{
		// A body that cannot be sent again: the end of a connection must be announced.
		"HTTP/1": {&http.Client{Transport: new(http.Transport), Timeout: patience}, "http://" + p.address, func() io.Reader { return io.MultiReader(strings.NewReader("x")) }},
		// With connections of several requests at a time, net/http refuses to send such a body
		// after GOAWAY, even if it has sent nothing of it.
		"HTTP/2": {http2Client(t), "http://" + p.address, func() io.Reader { return strings.NewReader("x") }},
		"HTTP/3": {http3Client(t), of3, func() io.Reader { return strings.NewReader("x") }},
	} {
		const clients, requests = 20, 50
		before := p.Stats().Ended.MaxRequests
		served.Store(0)
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				for range requests {
					r, err := test.client.Post(test.url, "text/plain", test.body())
					if err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
					io.Copy(io.Discard, r.Body)
					r.Body.Close()
					verify.Equal(t, r.StatusCode, 200, "%s: %s", name, r.Status)
				}
			})
		}
		wg.Wait()
		test.client.CloseIdleConnections()
		verify.Equal(t, served.Load(), clients*requests, "%s: requests were served", name)
		verify.That(t, p.Stats().Ended.MaxRequests != before, "%s: no connection has reached its limit", name)
	}
}

// A client that does not answer, and opens streams after GOAWAY, does not delay the end.
func TestHTTP2GoAwayIsNotDelayed(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Connections: socket.ConnectionLimits{MaxRequests: 1}}, answersOK(t))
	c := p.dialFrames()
	goAways := 0
	for id := uint32(1); id < 10 && goAways < 2; id += 2 {
		c.request(id, http2Get, true)
		for answered := false; !answered && goAways < 2; {
			switch f := c.read().(type) {
			case nil:
				t.Fatal("the connection ended without a second GOAWAY")
			case *xhttp2.GoAwayFrame:
				goAways++
			case *xhttp2.DataFrame:
				answered = f.StreamEnded()
			}
		}
		p.skip(http2GoAwayTimeout * 6 / 10)
	}
	verify.Equal(t, goAways, 2, "GOAWAY")
}

// Connections to peers end with the request that reaches a limit; no request fails.
func TestLimitedConnectionsToPeers(t *testing.T) {
	const age = time.Hour
	for name, test := range map[string]struct {
		limits socket.ConnectionLimits
		opened int // by 10 requests, before each of which half the age passes
	}{
		"requests": {socket.ConnectionLimits{MaxRequests: 5}, 2},
		"age":      {socket.ConnectionLimits{MaxAge: age}, 4}, // each for three requests
		"none":     {socket.ConnectionLimits{}, 1},
	} {
		for _, protocol := range []string{"HTTP/1", "HTTP/2"} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				t.Parallel()
				long := 1000 * age
				p := startProxy(t, Options{Timeouts: Timeouts{Idle: long, Head: long, Body: long, Write: long}})
				var connections sync.Map // by the address of sluice
				address := startServer(t, func(_ http.ResponseWriter, r *http.Request) { connections.Store(r.RemoteAddr, nil) })
				options := someTransport
				options.ConnectionLimits, options.IdleTimeout = test.limits, long
				p.usePeers(protocol == "HTTP/2", options, balancer.Options{Policy: balancer.PolicyRoundRobin}, address)
				conn := p.dial()
				reader := bufio.NewReader(conn)
				for n := range 10 {
					p.sweeper.Advance(age / 2)
					status, _ := exchangeOn(t, conn, reader, "/")
					verify.That(t, status == 200, "request %d: status %d", n+1, status)
				}
				opened := 0
				for range connections.Range {
					opened++
				}
				verify.Equal(t, opened, test.opened, "connections")
			})
		}
	}
}

// awaitArrival waits until bytes of the client have arrived that sluice has not read.
func (c *clientConn) awaitArrival(t *testing.T) {
	t.Helper()
	eventually(t, "bytes have arrived", c.hasUnread)
}

func (c *clientConn) hasUnread() bool {
	nothing := true
	err := c.wire.Raw.Control(func(fd uintptr) { nothing = socket.Quiet(fd) })
	return err == nil && !nothing
}

// isProcessing reports whether a connection of any test has read frames and processes them.
func isProcessing() bool {
	stacks := make([]byte, 1<<20)
	return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("(*http2ClientConn).process("))
}

// A request that arrives as the idle time ends is served, not lost with the connection.
func TestRequestArrivesAsIdleTimeEnds(t *testing.T) {
	t.Parallel()
	if !hasIdleSet {
		t.Skip("a goroutine reads from the connection at any time")
	}
	const idle = time.Hour
	p := startProxy(t, Options{Timeouts: Timeouts{Idle: idle}}, answersOK(t))
	conn := p.dial()
	for range 3 {
		verify.Result(io.WriteString(conn, getRequest)).Must(t)
		expectResponse(t, conn, 200)
		eventually(t, "the connection is idle", func() bool { return p.idleConnCount() == 1 })
		c := p.onlyClient()
		verify.Require(t, p.idleConns.Take(c), "the connection is not idle")
		// What OnSweep does, but a request comes first.
		p.sweeper.Advance(idle)
		p.sweptFor(2 * socket.SweepInterval)
		io.WriteString(conn, getRequest)
		c.awaitArrival(t)
		c.wire.Conn.SetReadDeadline(socket.ALongTimeAgo)
		go c.Resume()
		expectResponse(t, conn, 200)
	}
	eventually(t, "the connection is idle", func() bool { return p.idleConnCount() == 1 })
	p.skip(idle)
	expectRest(t, conn, "")
}

// A client with threads may send a stream after its answer to GOAWAY. It is served, unless the
// machine stands still for http2GoAwaySettle.
func TestStreamArrivesAfterAnswerToGoAway(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Connections: socket.ConnectionLimits{MaxRequests: 1}}, answersOK(t))
	var err error
	for range 20 {
		c := p.dialFrames()
		c.request(1, http2Post, false)
		c.WritePing(true, c.awaitGoAway())
		c.expectAnswered(func(xhttp2.Frame) {})
		c.request(3, http2Post, true)
		c.WriteData(1, true, []byte("body"))
		if err = c.servedLast(1, 3); err == nil {
			return
		}
	}
	t.Error(err)
}

// So is one that has arrived when the time for such streams ends. A reader that has looked before,
// and found nothing, may end it all the same, which tells the client to send the request again: of
// a few connections, one has a reader that looks after the arrival.
func TestStreamArrivesAsGoAwayEnds(t *testing.T) {
	t.Parallel()
	type test struct {
		answers, parts bool
	}
	eachCase(t, map[string]test{
		"answered":           {true, false},
		"not answered":       {false, false},
		"answered, in parts": {true, true},
	}, func(t *testing.T, test test) {
		var err error
		for range 20 {
			p := startProxy(t, Options{Connections: socket.ConnectionLimits{MaxRequests: 1}}, answersOK(t))
			if err = p.sendAsGoAwayEnds(test.answers, test.parts); err == nil {
				return
			}
		}
		t.Error(err)
	})
}

// sendAsGoAwayEnds sends the stream 3 as the time for streams after GOAWAY ends, in two parts or
// one, and returns why it was not the last one that was served.
func (p *testProxy) sendAsGoAwayEnds(answers, parts bool) error {
	c := p.dialFrames()
	c.request(1, http2Get, true)
	ping := c.awaitGoAway()
	if answers {
		c.WritePing(true, ping)
	}
	h := p.onlyHTTP2Client()
	frames := c.framesOf(func() { c.request(3, http2Get, true) })
	first := len(frames)
	if parts {
		first = 5
	}
	func() {
		h.protocol.Mu.Lock() // nothing is processed
		defer h.protocol.Mu.Unlock()
		p.skip(http2GoAwayTimeout)
		c.conn.Write(frames[:first])
		eventually(p.t, "bytes have arrived, or are read", func() bool { return h.conn.hasUnread() || isProcessing() })
	}()
	if parts {
		p.skip(http2GoAwayTimeout)
		c.conn.Write(frames[first:])
	}
	return c.servedLast(1, 3)
}

// A client may close the connection instead of an answer to GOAWAY. That ends it at once, also when
// the end arrives together with a last frame.
func TestClientClosesAfterGoAway(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Connections: socket.ConnectionLimits{MaxRequests: 1}}, answersOK(t))
	c := p.dialFrames()
	c.request(1, http2Get, true)
	c.awaitGoAway()
	p.endWithFrame(t, c, func(h *http2ClientConn) { // no deadline wakes the connection
		h.goAwayUntil = p.sweeper.Now() + int64(time.Hour)
		h.conn.client.Entry.Disarm()
	})
}

// So does one that lets sluice's own answer wait, long before the write timeout.
func TestClientClosesWithinAResponse(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		p := startProxy(t, Options{Timeouts: Timeouts{Write: time.Hour}}) // without peers, which would ask whether the client is there
		var conn net.Conn
		if secure {
			p.address = p.serveWith(ListenerOptions{TLS: &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"h2"}}})
			conn = tls.Client(p.stream(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		} else {
			conn = p.stream()
		}
		c := framesOn(t, conn, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
		c.request(1, http2Get, true)
		for head := false; !head; {
			_, head = c.read().(*xhttp2.MetaHeadersFrame)
		}
		p.endWithFrame(t, c, func(h *http2ClientConn) { h.conn.client.Entry.Disarm() })
	}
}

// endWithFrame sends a frame and the end of the connection so that one wake-up reports both, calls
// before with the mutex of the connection held, and waits until the connection has ended.
func (p *testProxy) endWithFrame(t *testing.T, c *frameClient, before func(*http2ClientConn)) {
	t.Helper()
	h := p.onlyHTTP2Client()
	// The reading goroutine may wait for the mutex, with earlier frames: then it goes on first.
	eventually(t, "the first frame is read, and nothing is processed", func() bool {
		h.protocol.Mu.Lock() // nothing is processed
		defer h.protocol.Mu.Unlock()
		c.WritePing(false, [8]byte{1})
		for start := time.Now(); h.conn.hasUnread(); runtime.Gosched() {
			if time.Since(start) > 100*time.Millisecond {
				return false
			}
		}
		c.WritePing(false, [8]byte{2})
		conn := c.conn
		if secure, ok := conn.(*tls.Conn); ok {
			conn = secure.NetConn() // without close_notify, as of a program that was killed
		}
		verify.NoError(t, conn.(*net.TCPConn).CloseWrite())
		h.conn.awaitArrival(t)
		before(h)
		return true
	})
	eventually(t, "the connection has ended", func() bool {
		return p.Connections() == 0
	})
}
