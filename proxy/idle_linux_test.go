package proxy

import (
	"context"
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
func (p *testProxy) idleConnCount() int { return p.idleConns.Len() }

// An idle connection has no goroutine, and goes on as if it had, also one that has sent nothing.
func TestIdleConnections(t *testing.T) {
	if !alone(t) {
		return
	}
	p := startProxy(t, Options{}, answersOK(t))
	conns := []net.Conn{p.dial()} // a silent one
	for range 20 {
		conn := p.send(getRequest)
		readResponse(t, conn)
		conns = append(conns, conn)
	}
	eventually(t, "all connections rest", func() bool { return p.idleConnCount() == len(conns) })
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

// Requests that come at the very moment at which a connection begins to rest,
// or the server stops, are served.
func TestRequestsMeetIdleSet(t *testing.T) {
	t.Parallel()
	p, seed := startProxy(t, Options{}, answersOK(t)), verify.Seed(t)
	var wg sync.WaitGroup
	for i := range 20 {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		conn := p.dial()
		wg.Go(func() {
			for range 5 {
				io.WriteString(conn, getRequest)
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
	origin := startHeldOrigin(t)
	p := startProxy(t, Options{}, origin.address())
	ask := func(conn net.Conn) {
		t.Helper()
		io.WriteString(conn, getRequest)
		expectResponse(t, conn, 200)
	}
	l := verify.Result(socket.Listen("tcp", "127.0.0.1:0")).Must(t)
	defer l.Close()
	serve := func(name string) (end func()) {
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- p.Serve(ctx, l, ListenerOptions{Name: name}) }()
		return func() {
			t.Helper()
			cancel()
			verify.Equal(t, <-served, context.Canceled, "served")
		}
	}
	other := p.dial()
	p.address = l.Addr().String()
	end := serve("first")
	idle, rests := p.dial(), p.dial()
	for _, conn := range []net.Conn{idle, rests, other} {
		ask(conn)
	}
	eventually(t, "three rest", func() bool { return p.idleConnCount() == 3 })
	busy := p.send(heldRequest) // silent before, it would rest too
	<-origin.arrived
	end()
	end = serve("second")
	ask(idle)
	late := p.dial()
	ask(late)
	end()
	p.Drain(l, 300*time.Millisecond, time.Hour)
	io.WriteString(idle, getRequest)
	expectLast(t, idle)
	for _, conn := range []net.Conn{rests, late} {
		expectRest(t, conn, "")
	}
	close(origin.proceed)
	answer, err := io.ReadAll(busy)
	verify.That(t, err == nil && strings.HasSuffix(string(answer), "\r\n\r\nok"), "the busy one: %q, %v", answer, err)
	for range 2 {
		ask(other)
	}
}
