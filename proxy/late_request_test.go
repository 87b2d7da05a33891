package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/proxy/socket"
	"sluice/test/verify"
)

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
