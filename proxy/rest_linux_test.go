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
)

// restingConns returns how many connections rest.
func (p *testProxy) restingConns() int {
	p.resting.mu.Lock()
	defer p.resting.mu.Unlock()
	return len(p.resting.conns)
}

// rested returns n connections that rest, after a request each.
func (p *testProxy) rested(n int) []net.Conn {
	p.t.Helper()
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = p.dial()
		io.WriteString(conns[i], "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		readResponse(p.t, conns[i])
	}
	eventually(p.t, "all connections rest", func() bool { return p.restingConns() == n })
	return conns
}

// An idle connection has no goroutine, and goes on as if it had.
func TestRestingConnections(t *testing.T) {
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	conns := p.rested(20)
	stacks := make([]byte, 1<<20)
	if n := strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "serveUntilIdle"); n > 0 {
		t.Errorf("%d goroutines wait for clients", n)
	}
	for range 2 { // a connection rests again
		for _, conn := range conns {
			io.WriteString(conn, "GET / HTTP/1.1\r\nHo")
			io.WriteString(conn, "st: a\r\n\r\n")
			if status, body := readResponse(t, conn); status != 200 || body != "ok" {
				t.Errorf("got %d %q", status, body)
			}
		}
		eventually(t, "all connections rest", func() bool { return p.restingConns() == len(conns) })
	}
	for i, conn := range conns {
		switch i % 3 {
		case 0:
			conn.Close()
		case 1:
			conn.(*net.TCPConn).CloseWrite()
		case 2:
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
	}
	eventually(t, "no connection is left", func() bool { return p.Connections() == 0 && p.restingConns() == 0 })
}

// One that never sends anything rests, too, and may still do so.
func TestSilentConnectionsRest(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	conn := p.dial()
	eventually(t, "the connection rests", func() bool { return p.restingConns() == 1 })
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if status, body := readResponse(t, conn); status != 200 || body != "ok" {
		t.Errorf("got %d %q", status, body)
	}
}

// It ends when its time is over.
func TestRestingConnectionsTimeOut(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{Timeouts: Timeouts{Idle: 2 * time.Second}}, origin.address())
	for _, conn := range p.rested(3) {
		if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("got %d, %v, want EOF", n, err)
		}
	}
}

// At a stop it serves one more request, or ends.
func TestShutdownOfRestingConnections(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	for _, grace := range []time.Duration{0, time.Hour} {
		p := newUnmanagedProxy(t, Options{}, origin.address())
		conns := p.rested(3)
		ended := make(chan error, 1)
		go func() { ended <- p.Shutdown(context.Background(), grace) }()
		eventually(t, "no new connections", func() bool { return !p.accepts() })
		for _, conn := range conns {
			want := ""
			if grace > 0 {
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				want = "\r\nConnection: close\r\n\r\nok"
			}
			if answer, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(answer), want) || want == "" && len(answer) > 0 {
				t.Errorf("grace %v: got %q, %v", grace, answer, err)
			}
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	p := newUnmanagedProxy(t, Options{}, origin.address())
	p.rested(3)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Shutdown(ctx, time.Hour); err != context.Canceled {
		t.Errorf("shutdown: %v", err)
	}
}

// Requests that come at the very moment at which a connection begins to rest,
// or the server stops, are served.
func TestRequestsMeetRest(t *testing.T) {
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
				if status, body := readResponse(t, conn); status != 200 || body != "ok" {
					t.Errorf("got %d %q", status, body)
				}
				// A sweep takes note of it within this time.
				time.Sleep(restAfter + time.Duration(random.Int64N(int64(2*sweepInterval))) - sweepInterval/2)
			}
		})
	}
	wg.Wait()
}
