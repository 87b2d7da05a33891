package proxy

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/proxy/socket"
	"sluice/test/verify"
)

const hasIdleSet = true

// idleConnCount returns how many connections rest.
func (p *testProxy) idleConnCount() int {
	return p.idleConns.Len()
}

// rested returns n connections that rest, after a request each.
func (p *testProxy) idleClients(n int) []net.Conn {
	p.t.Helper()
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = p.dial()
		io.WriteString(conns[i], "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		readResponse(p.t, conns[i])
	}
	eventually(p.t, "all connections rest", func() bool { return p.idleConnCount() == n })
	return conns
}

// An idle connection has no goroutine, and goes on as if it had.
func TestIdleConnections(t *testing.T) {
	if !alone(t) {
		return
	}
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	conns := p.idleClients(20)
	stacks := make([]byte, 1<<20)
	eventually(t, "no goroutine waits for clients", func() bool {
		return !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "serveUntilIdle")
	})
	for range 2 { // a connection rests again
		for _, conn := range conns {
			io.WriteString(conn, "GET / HTTP/1.1\r\nHo")
			io.WriteString(conn, "st: a\r\n\r\n")
			expectResponse(t, conn, 200, "ok")
		}
		eventually(t, "all connections rest", func() bool { return p.idleConnCount() == len(conns) })
	}
	for i, conn := range conns {
		switch i % 3 {
		case 0:
			conn.Close()
		case 1:
			closeWrite(t, conn)
		case 2:
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
	}
	eventually(t, "no connection is left", func() bool { return p.Connections() == 0 && p.idleConnCount() == 0 })
}

// One that never sends anything rests, too, and may still do so.
func TestSilentConnectionsBecomeIdle(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	conn := p.dial()
	eventually(t, "the connection rests", func() bool { return p.idleConnCount() == 1 })
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	expectResponse(t, conn, 200, "ok")
}

// At a stop it serves one more request, or ends.
func TestShutdownOfIdleConnections(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	for _, grace := range []time.Duration{0, time.Hour} {
		p := newUnmanagedProxy(t, Options{}, origin.address())
		conns := p.idleClients(3)
		ended := make(chan error, 1)
		go func() { ended <- p.Shutdown(context.Background(), grace) }()
		eventually(t, "no new connections", func() bool { return !p.accepts() })
		for _, conn := range conns {
			want := ""
			if grace > 0 {
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				want = "\r\nConnection: close\r\n\r\nok"
			}
			answer, err := io.ReadAll(conn)
			verify.That(t, err == nil && strings.HasSuffix(string(answer), want) && (want != "" || len(answer) == 0), "grace %v: got %q, %v", grace, answer, err)
		}
		verify.Succeeds(t, <-ended)
	}
	p := newUnmanagedProxy(t, Options{}, origin.address())
	p.idleClients(3)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	verify.Equal(t, p.Shutdown(ctx, time.Hour), context.Canceled, "shutdown")
}

// Requests that come at the very moment at which a connection begins to rest,
// or the server stops, are served.
func TestRequestsMeetIdleSet(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	var wg sync.WaitGroup
	for i := range 20 {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		conn := p.dial()
		wg.Go(func() {
			for range 5 {
				fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				expectResponse(t, conn, 200, "ok")
				// A sweep takes note of it within this time.
				time.Sleep(idleSetDelay + time.Duration(random.Int64N(int64(2*socket.SweepInterval))) - socket.SweepInterval/2)
			}
		})
	}
	wg.Wait()
}

// A listener that is served no more lets its connections finish: one that is busy
// with its answer, an idle one after the grace, or with the answer to one more request.
// The socket can be served again, and closes for nobody.
func TestListenerIsGivenUp(t *testing.T) {
	t.Parallel()
	arrived, proceed := make(chan struct{}), make(chan struct{})
	origin := startOrigin(t, func(c *originConn) bool {
		r, ok := c.request()
		if ok && r.URL.Path == "/slow" {
			close(arrived)
			<-proceed
		}
		io.WriteString(c.Conn, okResponse)
		return ok
	})
	p := startProxy(t, Options{}, origin.address())
	l := verify.Result(socket.Listen("tcp", "127.0.0.1:0")).Must(t)
	serve := func(name string) (end func()) {
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- p.Serve(ctx, l, name) }()
		return func() {
			t.Helper()
			cancel()
			verify.Equal(t, <-served, context.Canceled, "served")
		}
	}
	dial := func() net.Conn {
		conn := verify.Result(net.Dial("tcp", l.Addr().String())).Must(t)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	ask := func(conn net.Conn, path string) { fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path) }
	end := serve("first")
	busy, idle, rests, other := dial(), dial(), dial(), p.dial()
	for _, conn := range []net.Conn{idle, rests, other} {
		ask(conn, "/")
		readResponse(t, conn)
	}
	ask(busy, "/slow")
	<-arrived
	eventually(t, "three rest", func() bool { return p.idleConnCount() == 3 })
	end()
	end = serve("second")
	ask(idle, "/")
	expectResponse(t, idle, 200)
	late := dial()
	ask(late, "/")
	expectResponse(t, late, 200)
	end()
	p.Drain(l, 300*time.Millisecond, time.Hour)
	ask(idle, "/")
	answer, err := io.ReadAll(idle)
	verify.That(t, err == nil && strings.Contains(string(answer), "\r\nConnection: close\r\n"), "the idle one: %q, %v", answer, err)
	for _, conn := range []net.Conn{rests, late} {
		answer, err := io.ReadAll(conn)
		verify.That(t, err == nil && len(answer) == 0, "one that rests: %q, %v", answer, err)
	}
	close(proceed)
	answer, err = io.ReadAll(busy)
	verify.That(t, err == nil && strings.HasSuffix(string(answer), "\r\n\r\nok"), "the busy one: %q, %v", answer, err)
	for range 2 {
		ask(other, "/")
		expectResponse(t, other, 200)
	}
	l.Close()
}
