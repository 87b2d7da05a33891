package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/proxy/accesslog"
	"sluice/route"
	"sluice/test/verify"
)

// Shutdown lets requests in flight finish, and their connections end with the answer, also where
// the client has sent its next request meanwhile; idle connections end at once.
func TestShutdownFinishesRequests(t *testing.T) {
	t.Parallel()
	origin := startHeldOrigin(t)
	p := newUnmanagedProxy(t, Options{}, origin.address())
	defer p.pool.Close()
	late := p.send(heldRequest)
	<-origin.arrived
	servesLate := p.onlyClient()
	idle, busy, silent := p.send(getRequest), p.dial(), p.dial()
	readResponse(t, idle)
	io.WriteString(busy, heldRequest)
	<-origin.arrived
	eventually(t, "four connections", func() bool { return p.Connections() == 4 })
	ended := p.shutDown(context.Background(), 0)
	for _, conn := range []net.Conn{idle, silent} {
		expectRest(t, conn, "")
	}
	select {
	case err := <-ended:
		t.Fatalf("shutdown ended with a request in flight: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	io.WriteString(late, getRequest)
	servesLate.awaitArrival(t)
	close(origin.proceed)
	for _, conn := range []net.Conn{busy, late} {
		expectLast(t, conn)
		conn.Close()
	}
	verify.Succeeds(t, <-ended)
}

// What is left when the time is over is cut: by Shutdown everything, by Drain what came through
// that listener.
func TestWhatIsLeftIsCut(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]bool{"server": false, "one listener": true}, func(t *testing.T, drain bool) {
		arrived := make(chan struct{})
		origin := startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
			switch r.URL.Path {
			case "/stream", "/busy":
				c.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
			case "/tunnel":
				c.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n")
			}
			arrived <- struct{}{}
			if r.URL.Path == "/busy" { // each wait for it is short
				for tick := time.Tick(10 * time.Millisecond); c.write("1\r\nx\r\n"); {
					<-tick
				}
			}
			io.ReadAll(c.Conn) // until cut
			return false
		}))
		onlyErrors := accesslog.Options{Slow: time.Hour}
		p := newUnmanagedProxy(t, Options{}, origin.address()).logged(onlyErrors)
		defer p.pool.Close()
		other := p.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
		<-arrived
		l, leave := p.serveUntil(ListenerOptions{Name: "drains", TLS: serverTLS(t)})
		p.address = l.Addr().String()
		var conns []net.Conn
		const delimited = 2 // so many of them by the end of the connection
		for _, request := range []string{
			"GET /stream HTTP/1.0\r\nHost: a\r\n\r\n",
			"GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n",
			getRequest,
			"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET /busy HTTP/1.1\r\nHost: a\r\n\r\n",
			"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc",
		} {
			conns = append(conns, p.send(request))
			<-arrived
		}
		conns = append(conns, p.send("GET / HT"))
		eventually(t, "all connections", func() bool { return p.Connections() == len(conns)+1 })
		if drain {
			leave()
			p.Drain(l, 0, 20*time.Millisecond)
		} else {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			verify.Equal(t, p.Shutdown(ctx, 0), context.DeadlineExceeded, "shutdown")
			conns = append(conns, other)
		}
		for i, conn := range conns {
			err := expectCut(t, conn, fmt.Sprint("connection ", i))
			verify.That(t, i >= delimited || err != nil, "connection %d: what was cut looks like the whole", i)
		}
		if drain {
			eventually(t, "one request in flight", func() bool { return p.inflight() == 1 && p.Connections() == 1 && origin.open() == 1 })
			other.Close()
			verify.Succeeds(t, p.Shutdown(context.Background(), 0))
		}
		eventually(t, "connections closed", func() bool { return origin.open() == 0 })
		var got []string
		for _, line := range p.lines() {
			got = append(got, fmt.Sprint(line.Target, " ", line.Status, " ", line.Reason))
		}
		slices.Sort(got)
		want := []string{"/ 503 drain_timeout", "/busy 200 drain_timeout", "/stream 200 drain_timeout", "/stream 200 drain_timeout", "/tunnel 101 drain_timeout", "/upload 503 drain_timeout"}
		if !drain {
			want = slices.Insert(want, 2, "/other 503 drain_timeout")
		}
		verify.Slices(t, got, want, "the lines of the access log")
	})
}

// So is what has no peer yet, in whatever it waits: its client was not too slow and has not left,
// and nobody who was asked about it has failed.
func TestWhatHasNoPeerIsCut(t *testing.T) {
	t.Parallel()
	type test struct {
		request string
		actions func(t *testing.T, asked chan struct{}) *route.Actions
		streams func(p *testProxy) *Streams
		waits   func(p *testProxy, asked chan struct{}) bool
	}
	forPeer := func(p *testProxy, _ chan struct{}) bool { return p.pool.Admission.Pending() == 1 }
	eachCase(t, map[string]test{
		"for a peer": {request: getRequest, waits: forPeer},
		"for the rest of a kept body": {
			request: "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc",
			waits:   func(p *testProxy, _ chan struct{}) bool { return p.keptBodies.Taken() > 0 },
		},
		"for the body of a question": {
			request: "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc",
			actions: func(t *testing.T, _ chan struct{}) *route.Actions {
				asks := asking(t, func(http.ResponseWriter, *http.Request) { t.Error("the question has not its body") })
				asks.BodyBytes = 1000
				return &route.Actions{ForwardAuth: asks}
			},
			waits: func(p *testProxy, _ chan struct{}) bool { return p.keptBodies.Taken() > 0 },
		},
		"for a permission": {
			request: getRequest,
			actions: func(t *testing.T, asked chan struct{}) *route.Actions {
				return &route.Actions{ForwardAuth: asking(t, func(_ http.ResponseWriter, r *http.Request) {
					close(asked)
					<-r.Context().Done()
				})}
			},
			waits: func(_ *testProxy, asked chan struct{}) bool { <-asked; return true },
		},
		"for a peer, by TCP": {streams: (*testProxy).target, waits: forPeer},
		"for a ClientHello": {
			streams: func(p *testProxy) *Streams { return &Streams{Names: verify.Result(route.NewTable(nil)).Must(p.t)} },
			waits:   func(p *testProxy, _ chan struct{}) bool { return p.Connections() == 1 },
		},
	}, func(t *testing.T, test test) {
		for _, drain := range []bool{false, true} {
			p, asked := newUnmanagedProxy(t, Options{}).logged(accesslog.Options{Sample: 1}), make(chan struct{})
			defer p.pool.Close()
			p.setService(route.Service{Retry: route.Retry{Attempts: 1, BodyBytes: 1 << 20}, WaitForPeer: time.Hour})
			if test.actions != nil {
				p.setActions(test.actions(t, asked))
			}
			o := ListenerOptions{Name: "drains"}
			if test.streams != nil {
				streams := test.streams(p.testProxy)
				o.Streams = func() *Streams { return streams }
			}
			l, leave := p.serveUntil(o)
			p.address = l.Addr().String()
			p.send(test.request)
			eventually(t, "it waits", func() bool { return test.waits(p.testProxy, asked) })
			ctx, cancel := context.WithCancel(context.Background())
			if cancel(); drain {
				ctx = context.Background()
				leave()
				p.Drain(l, 0, time.Millisecond)
			}
			verify.Equal(t, p.Shutdown(ctx, 0), ctx.Err(), "shutdown")
			verify.Equal(t, p.pool.Admission.Pending(), 0, "requests still wait")
			verify.Slices(t, p.ends(), []string{"503 drain_timeout"}, "drain %v: the lines of the access log", drain)
		}
	})
}

// While the grace lasts, a connection that was idle when the server began to stop serves one more
// request, and then ends. One that stays silent, and all without a grace, end without an answer.
func TestShutdownOfIdleConnections(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		grace    time.Duration
		canceled bool
	}{{0, false}, {100 * time.Millisecond, false}, {time.Hour, false}, {time.Hour, true}} {
		for _, rest := range []bool{false, true} { // both of them in the idle set
			p := newUnmanagedProxy(t, Options{}, answersOK(t))
			used, other := p.send(getRequest), p.dial()
			readResponse(t, used)
			if rest {
				io.WriteString(other, getRequest)
				readResponse(t, other)
			}
			eventually(t, "two connections", func() bool { return p.Connections() == 2 && (!rest || !hasIdleSet || p.idleConnCount() == 2) })
			ctx, cancel := context.WithCancel(context.Background())
			if test.canceled {
				cancel()
			}
			ended := p.shutDown(ctx, test.grace)
			for _, conn := range []net.Conn{used, other} {
				if test.grace < time.Hour || test.canceled {
					expectRest(t, conn, "")
					continue
				}
				io.WriteString(conn, getRequest)
				expectLast(t, conn)
			}
			verify.Equal(t, <-ended, ctx.Err(), "shutdown")
			cancel()
		}
	}
}

// A connection that is accepted while the server begins to stop is served: Shutdown does not return
// before its listeners are closed, and then waits for what they let in. One that comes when the
// grace is over is cut.
func TestShutdownMeetsLateConnections(t *testing.T) {
	t.Parallel()
	for _, over := range []bool{false, true} {
		p := newUnmanagedProxy(t, Options{}, answersOK(t))
		l := listen(t)
		defer l.Close()
		late := &lateListener{Listener: l, accepting: make(chan struct{}), closed: make(chan struct{}), proceed: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- p.Serve(context.Background(), late, ListenerOptions{Name: "late"}) }()
		<-late.accepting
		p.address = l.Addr().String()
		client := p.stream()
		io.WriteString(client, getRequest)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- p.Shutdown(ctx, map[bool]time.Duration{true: time.Hour}[over]) }()
		<-late.closed
		if over {
			cancel()
			eventually(t, "the grace is over", func() bool { return p.ctx.Err() != nil })
			close(late.proceed)
			verify.Equal(t, <-ended, context.Canceled, "shutdown")
			expectCut(t, client, "the late connection")
		} else {
			select {
			case err := <-ended:
				t.Fatalf("shutdown has returned (%v), and a listener still accepts", err)
			case <-time.After(50 * time.Millisecond):
			}
			close(late.proceed)
			expectLast(t, client)
			verify.Succeeds(t, <-ended)
		}
		verify.Equal(t, <-served, ErrServerClosed, "serve")
	}
}

// A lateListener accepts one connection after it was told to close: when it is
// told to proceed.
type lateListener struct {
	net.Listener
	accepting, closed, proceed chan struct{}
	acceptOnce, closeOnce      sync.Once
	accepted                   bool
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

// What sluice cuts is its own doing, in the access log and in the counts of the peer: neither the
// client has left, nor has the peer failed. Nor is it sent again.
func TestWhatIsCutBlamesNobody(t *testing.T) {
	t.Parallel()
	for n := range 8 {
		http2, peerHTTP2, drain := n&1 != 0, n&2 != 0, n&4 != 0
		t.Run(fmt.Sprintf("client's HTTP/2 %v, peer's %v, drain %v", http2, peerHTTP2, drain), func(t *testing.T) {
			t.Parallel()
			testCut(t, http2, peerHTTP2, drain)
		})
	}
}

func testCut(t *testing.T, http2, peerHTTP2, drain bool) {
	arrived := make(chan struct{}, 10)
	var address string
	if peerHTTP2 {
		address = startFramePeer(t, func(p *framePeer, stream uint32) {
			p.headers(stream, false, ":status", "103")
			arrived <- struct{}{}
		})
	} else {
		address = startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
			arrived <- struct{}{}
			io.ReadAll(c.Conn)
			return false
		})).address()
	}
	p := newUnmanagedProxy(t, Options{}).logged(accesslog.Options{Sample: 1})
	defer p.pool.Close()
	p.usePeers(peerHTTP2, someTransport, balancer.Options{Policy: balancer.PolicyRoundRobin, DrainTimeout: patience}, address)
	p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 3, BodyBytes: 1 << 16}})
	l, leave := p.serveUntil(ListenerOptions{Name: "drains", HTTP2: true})
	p.address = l.Addr().String()
	requests := []struct{ text, fields string }{
		{"GET /get HTTP/1.1\r\nHost: a\r\n\r\n", http2GetOf("/get")},
		{"PUT /put HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok", ":method=PUT|:scheme=http|:authority=a|:path=/put|content-length=2"},
		{"PUT /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", ":method=PUT|:scheme=http|:authority=a|:path=/chunked"},
		{"POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc", ":method=POST|:scheme=http|:authority=a|:path=/post|content-length=100000"},
	}
	var c *frameClient
	if http2 {
		c = p.dialFrames()
	}
	for i, r := range requests {
		if http2 {
			id := uint32(2*i + 1)
			c.request(id, r.fields, i == 0)
			if i > 0 {
				c.WriteData(id, i == 1, []byte("ok"))
			}
		} else {
			p.send(r.text)
		}
		<-arrived
	}
	if drain {
		leave()
		p.Drain(l, 0, 20*time.Millisecond)
		eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
		verify.Succeeds(t, p.Shutdown(context.Background(), 0))
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		verify.Equal(t, p.Shutdown(ctx, 0), context.DeadlineExceeded, "shutdown")
	}
	var got []string
	for _, line := range p.lines() {
		verify.Equal(t, line.Attempts, 1, "tries of %s", line.Target)
		got = append(got, fmt.Sprint(line.Target, " ", line.Status, " ", line.Reason))
	}
	slices.Sort(got)
	verify.Slices(t, got, []string{"/chunked 503 drain_timeout", "/get 503 drain_timeout", "/post 503 drain_timeout", "/put 503 drain_timeout"}, "the access log")
	outcomes := p.pool.Snapshot().All[0].Outcomes()
	verify.Equal(t, int(outcomes[balancer.OutcomeLocal]), len(requests), "outcomes of sluice's own, of %v", outcomes)
}
