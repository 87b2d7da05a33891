package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/config/units"
	"sluice/proxy/socket"
	"sluice/test/verify"
)

func TestSlowClients(t *testing.T) {
	t.Parallel()
	const short = 60 * time.Millisecond
	type test struct {
		first, want string
		timeouts    Timeouts // no other one may come before it
	}
	eachCase(t, map[string]test{
		"nothing":             {"", "", Timeouts{Idle: short}},
		"half a head":         {"GET / HTTP/1.1\r\nHo", "HTTP/1.1 408 ", Timeouts{Head: 2 * time.Second}}, // of a TLS handshake too
		"half a small body":   {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", "HTTP/1.1 408 ", Timeouts{Body: short}},
		"half a large body":   {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc", "HTTP/1.1 408 ", Timeouts{Body: short}},
		"half a chunked body": {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", "HTTP/1.1 408 ", Timeouts{Body: short}},
	}, func(t *testing.T, test test) {
		p := startProxy(t, Options{Timeouts: test.timeouts}, answersOK(t))
		got := p.raw(test.first)
		verify.That(t, strings.HasPrefix(got, test.want) && (test.want != "" || got == ""), "got %q, want %q", got, test.want)
	})
}

// A head that trickles in is not saved by each byte being in time.
func TestTricklingHead(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Timeouts: Timeouts{Head: 150 * time.Millisecond}})
	conn := p.dial()
	for {
		if _, err := io.WriteString(conn, "G"); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the connection was never closed")
		} else if err != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A client that does not take its response holds neither the peer nor memory for longer than the
// timeout, and one that goes away meanwhile for no longer.
func TestClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	for _, leaves := range []bool{false, true} {
		origin := startOrigin(t, afterRequest(func(c *originConn) bool {
			c.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			for c.write("10000\r\n" + strings.Repeat("x", 1<<16) + "\r\n") {
			}
			return false
		}))
		timeout := 100 * time.Millisecond
		if leaves {
			timeout = time.Hour
		}
		p := startProxy(t, Options{Timeouts: Timeouts{Write: timeout}}, origin.address())
		conn := p.send(getRequest)
		expectNext(t, conn, "HTTP/1.1 200 ")
		if leaves {
			conn.Close()
		}
		p.expectNothingOpen()
		eventually(t, "the peer's connection has ended", func() bool { return origin.open() == 0 })
	}
}

// A peer that is taken out while it serves a request finishes it, and is cut
// when its time to drain is over.
func TestDrainWithOpenStream(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]bool{"finished": false, "cut": true}, func(t *testing.T, cut bool) {
		proceed := make(chan struct{})
		origin := startOrigin(t, afterRequest(func(c *originConn) bool {
			io.WriteString(c.Conn, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none")
			<-proceed
			return c.write("two")
		}))
		p := startProxy(t, Options{}, origin.address())
		if cut {
			p.reconfigure(balancer.Options{DrainTimeout: 50 * time.Millisecond})
		}
		conn := p.send(getRequest)
		eventually(t, "a request in flight", func() bool { return p.inflight() == 1 })
		p.setPeers()
		p.expect(closingRequest, "503")
		if !cut {
			close(proceed)
		}
		answer, err := io.ReadAll(io.LimitReader(conn, int64(len("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nonetwo"))))
		complete := err == nil && strings.HasSuffix(string(answer), "onetwo")
		verify.That(t, complete != cut, "got %q, %v", answer, err)
		if cut {
			close(proceed)
		}
		eventually(t, "the peer is gone", func() bool { return len(p.pool.Snapshot().Draining) == 0 })
		eventually(t, "connections closed", func() bool { return origin.open() == 0 })
	})
}

// A connection ends when it was idle for its time, also in the idle set.
func TestIdleConnectionsTimeOut(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Timeouts: Timeouts{Idle: 2 * time.Second}}, answersOK(t))
	conn := p.send(getRequest)
	readResponse(t, conn)
	expectRest(t, conn, "")
}

// Accepting goes on after any error.
func TestAcceptSurvivesErrors(t *testing.T) {
	t.Parallel()
	l := listen(t)
	failing := &failingListener{Listener: l, errors: []error{
		&net.OpError{Op: "accept", Err: syscall.EMFILE}, &net.OpError{Op: "accept", Err: syscall.ECONNABORTED}, errors.New("odd"),
	}}
	s := newTestServer(Options{})
	served := make(chan error)
	go func() { served <- s.Serve(context.Background(), failing, ListenerOptions{Name: "test"}) }()
	p := &testProxy{Server: s, t: t, address: l.Addr().String()}
	p.expect(closingRequest, "404")
	verify.Succeeds(t, s.Shutdown(context.Background(), 0))
	verify.Equal(t, <-served, ErrServerClosed, "served")
}

type failingListener struct {
	net.Listener
	errors []error
}

func (l *failingListener) Accept() (net.Conn, error) {
	if len(l.errors) > 0 {
		err := l.errors[0]
		l.errors = l.errors[1:]
		return nil, err
	}
	return l.Listener.Accept()
}

// A client that goes away while it waits for its response frees the peer.
func TestClientThatGoesAwayWaiting(t *testing.T) {
	t.Parallel()
	type test struct {
		first string
		keep  bool
	}
	eachCase(t, map[string]test{
		"before the response":      {"", false},
		"within the response":      {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", false},
		"and the exchange goes on": {"", true},
	}, func(t *testing.T, test test) {
		left := make(chan struct{})
		leave := sync.OnceFunc(func() { close(left) })
		origin := startOrigin(t, afterRequest(func(c *originConn) bool {
			io.WriteString(c.Conn, test.first)
			if test.keep {
				<-left
				io.WriteString(c.Conn, okResponse)
			}
			io.ReadAll(c.Conn)
			return false
		}))
		t.Cleanup(leave) // the peer ends whatever happens
		p := startProxy(t, Options{Switches: Switches{KeepForGoneClients: test.keep}}, origin.address())
		conn := p.send(getRequest)
		eventually(t, "a request in flight", func() bool { return p.inflight() == 1 })
		if test.first != "" {
			io.ReadFull(conn, make([]byte, len(test.first)))
		}
		conn.Close()
		if test.keep {
			p.sweptFor(looks) // for the exchange to be broken off in
		}
		leave()
		if !test.keep {
			eventually(t, "the peer's connection is closed", func() bool { return origin.open() == 0 })
		}
		eventually(t, "no request in flight", func() bool { return p.inflight() == 0 })
		peer := p.pool.Snapshot().All[0]
		verify.Equal(t, peer.Failures(), 0, "failures counted against the peer")
		ok := peer.Outcomes()[balancer.OutcomeOK]
		verify.That(t, test.keep == (ok == 1) || test.first != "", "%d exchanges went to their end", ok)
	})
}

// A client that waits for long, and is there, gets its response.
func TestClientThatWaits(t *testing.T) {
	t.Parallel()
	origin := startHeldOrigin(t)
	p := startProxy(t, Options{}, origin.address())
	conn := p.send(heldRequest + heldRequest)
	for range 2 {
		<-origin.arrived
		p.sweptFor(looks)
		origin.proceed <- struct{}{}
		expectResponse(t, conn, 200)
	}
}

// A client that connects and waits is let in like one that speaks at once.
func TestListen(t *testing.T) {
	t.Parallel()
	l := verify.Result(socket.Listen("tcp", "127.0.0.1:0")).Must(t)
	s := newTestServer(Options{})
	p := &testProxy{Server: s, t: t, address: l.Addr().String()}
	served := make(chan error)
	go func() { served <- s.Serve(context.Background(), l, ListenerOptions{Name: "test"}) }()
	for _, wait := range []time.Duration{0, 100 * time.Millisecond, 2500 * time.Millisecond} {
		conn := p.dial()
		time.Sleep(wait)
		io.WriteString(conn, closingRequest)
		answer, err := io.ReadAll(conn)
		verify.That(t, err == nil && strings.HasPrefix(string(answer), "HTTP/1.1 404 "), "after %v: got %.60q, %v", wait, answer, err)
	}
	verify.Succeeds(t, s.Shutdown(context.Background(), 0))
	verify.Equal(t, <-served, ErrServerClosed, "served")
}

func TestOptionsOfTheNextRequest(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, answersOK(t))
	conn := p.dial()
	for _, step := range []struct {
		limit  units.Size
		status int
	}{{100, 200}, {5, 414}} {
		p.change(func(o *Options) { o.Limits.TargetBytes = step.limit })
		io.WriteString(conn, "GET /abcdefgh HTTP/1.1\r\nHost: a\r\n\r\n")
		expectResponse(t, conn, step.status)
	}
}
