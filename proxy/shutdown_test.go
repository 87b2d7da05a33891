package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/route"
	"sluice/test/verify"
)

// Shutdown lets the request in flight finish, and its connection ends with the
// answer; idle connections end at once.
func TestShutdownFinishesRequests(t *testing.T) {
	t.Parallel()
	arrived, proceed := make(chan struct{}), make(chan struct{})
	origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
		if r.URL.Path == "/slow" {
			close(arrived)
			<-proceed
		}
		return c.write(okResponse)
	}))
	p := newUnmanagedProxy(t, Options{}, origin.address())
	idle, busy, silent := p.dial(), p.dial(), p.dial()
	io.WriteString(idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	readResponse(t, idle)
	io.WriteString(busy, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-arrived
	eventually(t, "three connections", func() bool { return p.Connections() == 3 })

	ended := make(chan error, 1)
	go func() { ended <- p.Shutdown(context.Background(), 0) }()
	for _, conn := range []net.Conn{idle, silent} {
		expectRest(t, conn, "")
	}
	eventually(t, "no new connections", func() bool { return !p.accepts() })
	select {
	case err := <-ended:
		t.Fatalf("shutdown ended with a request in flight: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(proceed)
	answer, err := io.ReadAll(busy)
	verify.That(t, err == nil && strings.HasSuffix(string(answer), "\r\n\r\nok") && strings.Contains(string(answer), "\r\nConnection: close\r\n"), "got %q, %v", answer, err)
	verify.Succeeds(t, <-ended)
}

// accepts reports whether the server has a listener. The address of a former one may be another
// test's by now.
func (p *testProxy) accepts() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.listeners) > 0
}

func TestShutdownCutsWhatIsLeft(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 1)
	origin := startOrigin(t, func(c *originConn) bool {
		c.request()
		arrived <- struct{}{}
		io.ReadAll(c.Conn) // until cut
		return false
	})
	p := newUnmanagedProxy(t, Options{}, origin.address())
	conn := p.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-arrived
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	verify.Equal(t, p.Shutdown(ctx, 0), context.DeadlineExceeded, "shutdown")
	_, err := io.Copy(io.Discard, conn)
	verify.That(t, !errors.Is(err, os.ErrDeadlineExceeded), "the client's connection is still open")
	eventually(t, "connections closed", func() bool { return origin.open() == 0 })
	p.pool.Close()
}

// The requests of a listener that drains end with its grace, those of another one do not.
func TestDrainCutsWhatIsLeft(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	origin := startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
		switch r.URL.Path {
		case "/stream":
			io.WriteString(c.Conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
		case "/tunnel":
			io.WriteString(c.Conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n")
		}
		arrived <- struct{}{}
		io.ReadAll(c.Conn) // until cut
		return false
	}))
	p := startProxy(t, Options{}, origin.address())
	l := listen(t)
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx, l, "drains") }()
	ask := func(address, request string) net.Conn {
		conn := verify.Result(net.Dial("tcp", address)).Must(t)
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, request)
		return conn
	}
	const slow = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
	var conns []net.Conn
	for _, request := range []string{
		slow,
		"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n",
		"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc",
	} {
		conns = append(conns, ask(l.Addr().String(), request))
		<-arrived
	}
	conns = append(conns, ask(l.Addr().String(), "GET / HT"))
	other := ask(p.address, slow)
	<-arrived
	eventually(t, "all connections", func() bool { return p.Connections() == len(conns)+1 })
	cancel()
	verify.Equal(t, <-served, context.Canceled, "served")
	p.Drain(l, 0, 20*time.Millisecond)
	for i, conn := range conns {
		_, err := io.Copy(io.Discard, conn)
		verify.That(t, !errors.Is(err, os.ErrDeadlineExceeded), "connection %d is still open", i)
	}
	eventually(t, "one request in flight", func() bool { return p.inflight() == 1 && p.Connections() == 1 && origin.open() == 1 })
	other.Close()
}

// A request on a connection that was idle when the server began to stop is
// served, and is the last one on it.
func TestShutdownServesIdleConnectionsOnceMore(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := newUnmanagedProxy(t, Options{}, origin.address())
	used, fresh := p.dial(), p.dial()
	io.WriteString(used, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	readResponse(t, used)
	eventually(t, "two connections", func() bool { return p.Connections() == 2 })
	ended := make(chan error, 1)
	go func() { ended <- p.Shutdown(context.Background(), time.Hour) }()
	eventually(t, "no new connections", func() bool { return !p.accepts() })
	for _, conn := range []net.Conn{used, fresh} {
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		answer, err := io.ReadAll(conn)
		verify.That(t, err == nil && strings.HasSuffix(string(answer), "\r\nConnection: close\r\n\r\nok"), "got %q, %v", answer, err)
	}
	verify.Succeeds(t, <-ended)
}

// One that stays silent is closed when the grace is over.
func TestShutdownWaitsForIdleConnectionsNoLonger(t *testing.T) {
	t.Parallel()
	p := newUnmanagedProxy(t, Options{})
	silent := p.dial()
	eventually(t, "a connection", func() bool { return p.Connections() == 1 })
	ended := make(chan error, 1)
	go func() { ended <- p.Shutdown(context.Background(), 100*time.Millisecond) }()
	expectRest(t, silent, "")
	verify.Succeeds(t, <-ended)
}

// A request that waits for a peer to come is not waited for any longer than
// others.
func TestShutdownDoesNotWaitForPeers(t *testing.T) {
	t.Parallel()
	p := newUnmanagedProxy(t, Options{})
	p.setService(route.Service{Timeouts: defaultTimeouts(), Retry: route.Retry{Attempts: 1}, WaitForPeer: time.Hour})
	p.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	eventually(t, "a request that waits", func() bool { return p.pool.Pending() == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- p.Shutdown(ctx, 0) }()
	select {
	case err := <-ended:
		verify.Equal(t, err, context.DeadlineExceeded, "shutdown")
	case <-time.After(patience):
		t.Fatal("shutdown still waits")
	}
	verify.Equal(t, p.pool.Pending(), 0, "requests still wait")
}

// A connection that is accepted while the server begins to stop is served:
// Shutdown does not return before its listeners are closed, and then waits for
// what they let in.
func TestShutdownWaitsForLateConnections(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := newUnmanagedProxy(t, Options{}, origin.address())
	socket := listen(t)
	defer socket.Close()
	late := newLateListener(socket)
	served := make(chan error, 1)
	go func() { served <- p.Serve(context.Background(), late, "late") }()
	<-late.accepting
	client := verify.Result(net.Dial("tcp", socket.Addr().String())).Must(t)
	defer client.Close()
	client.SetDeadline(time.Now().Add(patience))
	io.WriteString(client, closingRequest)

	ended := make(chan error, 1)
	go func() { ended <- p.Shutdown(context.Background(), 0) }()
	<-late.closed
	select {
	case err := <-ended:
		t.Fatalf("shutdown has returned (%v), and a listener still accepts", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(late.proceed)
	answer, err := io.ReadAll(client)
	verify.That(t, err == nil && strings.HasSuffix(string(answer), "\r\n\r\nok"), "got %q, %v", answer, err)
	verify.Succeeds(t, <-ended)
	verify.Equal(t, <-served, ErrServerClosed, "serve")
}

// One that comes when the grace is over is not served, and not waited for.
func TestShutdownCutsLateConnections(t *testing.T) {
	t.Parallel()
	p := newUnmanagedProxy(t, Options{})
	socket := listen(t)
	defer socket.Close()
	late := newLateListener(socket)
	served := make(chan error, 1)
	go func() { served <- p.Serve(context.Background(), late, "late") }()
	<-late.accepting
	client := verify.Result(net.Dial("tcp", socket.Addr().String())).Must(t)
	defer client.Close()
	client.SetDeadline(time.Now().Add(patience))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Shutdown(ctx, time.Hour) }()
	<-late.closed
	cancel()
	eventually(t, "the grace is over", func() bool { return p.ctx.Err() != nil })
	close(late.proceed)
	verify.Equal(t, <-ended, context.Canceled, "shutdown")
	_, err := client.Read(make([]byte, 1))
	verify.That(t, err != nil && !errors.Is(err, os.ErrDeadlineExceeded), "the late connection: %v, want it closed", err)
	<-served
}

// A lateListener accepts one connection after it was told to close: when it is
// told to proceed.
type lateListener struct {
	net.Listener
	accepting, closed, proceed chan struct{}
	acceptOnce, closeOnce      sync.Once
	accepted                   bool
}

func newLateListener(l net.Listener) *lateListener {
	return &lateListener{Listener: l, accepting: make(chan struct{}), closed: make(chan struct{}), proceed: make(chan struct{})}
}

func (l *lateListener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	return nil
}

func (l *lateListener) Accept() (net.Conn, error) {
	l.acceptOnce.Do(func() { close(l.accepting) })
	<-l.closed
	if l.accepted {
		return nil, net.ErrClosed
	}
	l.accepted = true
	<-l.proceed
	return l.Listener.Accept()
}

// A reload may remove a listener while the program stops.
func TestDrainDuringShutdown(t *testing.T) {
	t.Parallel()
	for range 20 {
		p := newUnmanagedProxy(t, Options{})
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			p.Drain(nil, 0, time.Hour)
		}()
		verify.Succeeds(t, p.Shutdown(t.Context(), 0))
		<-drained
		p.pool.Close()
	}
}
