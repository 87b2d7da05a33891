package proxy

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/route"
	"sluice/test/verify"
)

// hedged serves with a second peer asked after a moment.
func hedged(p *testProxy, attempts int) {
	p.setService(route.Service{Retry: route.Retry{
		Attempts: attempts, Hedge: route.NewHedge(route.Hedging{After: 30 * time.Millisecond}),
	}})
}

// answersAfter answers each request with the text, after a while.
func answersAfter(delay time.Duration, text string) func(c *originConn) bool {
	return afterRequest(func(c *originConn) bool {
		time.Sleep(delay)
		_, err := fmt.Fprintf(c.Conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		return err == nil
	})
}

func get(t *testing.T, p *testProxy, method string) (status int, body string) {
	t.Helper()
	conn := p.dial()
	defer conn.Close()
	fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: a\r\n\r\n", method)
	return readResponseTo(t, conn, method)
}

func TestHedge(t *testing.T) {
	t.Parallel()
	slow := startOrigin(t, hanging) // until it is given up
	fast := startOrigin(t, answersAfter(0, "fast"))
	p := startProxy(t, Options{}, slow.address(), fast.address())
	hedged(p, 2)
	const requests = 6
	for i := range requests {
		conn := p.send(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i))
		expectResponse(t, conn, 200, "fast")
		conn.Close()
	}
	eventually(t, "the slow peer has been asked", func() bool { return slow.connections() > 0 })
	eventually(t, "no connection to the slow peer", func() bool { return slow.open() == 0 })
	eventually(t, "no request in flight", func() bool { return p.inflight() == 0 })
	// Of each pair, the second one says so. Where fast takes long, slow has that one. Slow may
	// never read a request that was given up.
	heads := strings.Split(fast.got()+slow.got(), "\r\n\r\n")
	for i := range requests {
		asked, second := 0, 0
		for _, head := range heads {
			if strings.HasPrefix(head, fmt.Sprintf("GET /%d ", i)) {
				asked++
				second += strings.Count(head+"\r\n", "X-Sluice-Attempts: 2\r\n")
			}
		}
		verify.That(t, asked != 0 && asked <= 2 && second <= 1 && (asked != 2 || second == 1), "request %d: %d peers got it, %d as the second one", i, asked, second)
	}
	for _, peer := range p.pool.Snapshot().All {
		if peer.Address() == slow.address() && (peer.Outcomes()[balancer.OutcomeSuperseded] == 0 || peer.Failures() > 0) {
			t.Errorf("outcomes of the slow peer: %v", peer.Outcomes())
		}
	}
}

// The first peer may still answer first, or be the only one left.
func TestHedgeFirstPeerWins(t *testing.T) {
	t.Parallel()
	type test struct {
		second func(c *originConn, answered <-chan struct{})
	}
	eachCase(t, map[string]test{
		"second slower": {func(c *originConn, answered <-chan struct{}) {
			<-answered
			io.WriteString(c.Conn, okResponse)
		}},
		"second breaks off": {func(*originConn, <-chan struct{}) {}},
		"second talks nonsense later": {func(c *originConn, answered <-chan struct{}) {
			<-answered
			io.WriteString(c.Conn, "nonsense\r\n")
		}},
	}, func(t *testing.T, test test) {
		var asked atomic.Int32
		hedging, answered := make(chan struct{}), make(chan struct{})
		hedge, answer := sync.OnceFunc(func() { close(hedging) }), sync.OnceFunc(func() { close(answered) })
		serve := func(c *originConn) bool { // whoever is asked first is the first
			if _, ok := c.request(); !ok {
				return false
			}
			if asked.Add(1) == 1 {
				<-hedging
				time.Sleep(20 * time.Millisecond) // for the second to break off in
				return c.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")
			}
			hedge()
			test.second(c, answered)
			return false
		}
		p := startProxy(t, Options{}, startOrigin(t, serve).address(), startOrigin(t, serve).address())
		hedged(p, 1)
		t.Cleanup(func() { hedge(); answer() }) // the peers end whatever happens
		status, body := get(t, p, "GET")
		verify.That(t, status == 200 && body == "first", "got %d %q", status, body)
		answer()
		verify.Equal(t, asked.Load(), 2, "peers were asked")
	})
}

// A head that only the second peer refuses, as it is over the limit that this one announces, waits for the first.
func TestHedgeThatIsTooLong(t *testing.T) {
	t.Parallel()
	const limit = 8 << 10
	var long atomic.Bool
	arrived, refused := make(chan struct{}), make(chan struct{})
	settle := sync.OnceFunc(func() { close(refused) })
	wide := startFramePeer(t, func(p *framePeer, stream uint32) {
		if long.Load() {
			close(arrived)
			<-refused
		}
		p.headers(stream, true, ":status", "200")
	})
	narrow := startFramePeerWith(t, framePeerOptions{
		settings: []xhttp2.Setting{{ID: xhttp2.SettingMaxHeaderListSize, Val: limit}},
		answer:   func(p *framePeer, stream uint32) { p.headers(stream, true, ":status", "204") },
	})
	p := startProxyToH2C(t, wide, narrow)
	t.Cleanup(settle)
	for last := 0; last != 204; { // the wide peer is the next
		last, _ = get(t, p, "GET")
	}
	hedged(p, 2)
	long.Store(true)
	conn := p.send("GET / HTTP/1.1\r\nHost: a\r\nLong: " + strings.Repeat("~", limit) + "\r\n\r\n")
	<-arrived
	eventually(t, "the narrow peer was asked", func() bool {
		return slices.ContainsFunc(p.pool.Snapshot().All, func(peer *balancer.Peer) bool {
			o := peer.Outcomes()
			return peer.Address() == narrow && o[balancer.OutcomeLocal]+o[balancer.OutcomeClientGone] > 0
		})
	})
	settle()
	expectResponse(t, conn, 200)
}

// An exchange that is kept for a client that is gone goes on also where a second
// peer was asked.
func TestHedgeForGoneClient(t *testing.T) {
	t.Parallel()
	a, b := startHeldOrigin(t), startHeldOrigin(t)
	p := startProxy(t, Options{KeepForGoneClients: true}, a.address(), b.address())
	hedged(p, 2)
	conn := p.send(heldRequest)
	<-a.arrived
	<-b.arrived
	conn.Close()
	p.sweptFor(looks) // for the exchange to be broken off in
	close(a.proceed)
	close(b.proceed)
	eventually(t, "nothing in flight", func() bool { return p.inflight() == 0 })
	outcomes := p.outcomes()
	verify.That(t, outcomes[balancer.OutcomeOK] == 1 && outcomes[balancer.OutcomeClientGone] == 0, "outcomes %v", outcomes)
}

// A client that leaves while the second of two asked peers is awaited is the reason, whatever became of the first one.
func TestHedgeForClientThatLeaves(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	both := make(chan struct{})
	bothAsked := sync.OnceFunc(func() { close(both) })
	t.Cleanup(bothAsked) // the peers end whatever happens
	serve := afterRequest(func(c *originConn) bool {
		if asked.Add(1) == 1 {
			<-both // then it closes the connection
			return false
		}
		bothAsked()
		io.Copy(io.Discard, c) // until it is given up
		return false
	})
	p := startLogged(t, Options{}, startOrigin(t, serve).address(), startOrigin(t, serve).address())
	hedged(p.testProxy, 1)
	conn := p.send(getRequest)
	eventually(t, "the first peer has failed", func() bool { return p.outcomes()[balancer.OutcomeReset] == 1 })
	conn.Close()
	lines := p.lines()
	verify.That(t, len(lines) == 1 && lines[0].Status == 499 && lines[0].Reason == "client_gone", "got %+v", lines)
}

// A peer that was asked on a connection that it had before, and has not answered in time, has not closed that connection: it does
// not get the request again on another one.
func TestHedgeThatIsLateIsNotSentAgain(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	serve := withRequest(func(c *originConn, r *http.Request) bool {
		if r.URL.Path != "/hang" {
			return c.write(okResponse)
		}
		asked.Add(1)
		io.Copy(io.Discard, c) // until it is given up
		return false
	})
	a, b := startOrigin(t, serve), startOrigin(t, serve)
	p := startProxy(t, Options{}, a.address(), b.address())
	p.setService(route.Service{
		Timeouts: route.Timeouts{ResponseHeader: staleWithin / 4},
		Retry:    route.Retry{Attempts: 1, Hedge: route.NewHedge(route.Hedging{After: 30 * time.Millisecond})},
	})
	for range 2 { // each has a connection then
		get(t, p, "GET")
	}
	p.expect("GET /hang HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "504")
	eventually(t, "the requests have ended", func() bool { return p.inflight() == 0 && a.open()+b.open() == 0 })
	verify.That(t, asked.Load() <= 2, "two peers got the request %d times", asked.Load())
}

// A request whose session is with its peer is not hedged: another peer would answer without the session.
func TestSessionIsNotHedged(t *testing.T) {
	t.Parallel()
	slow := answersAfter(20*time.Millisecond, "a")
	p := startProxy(t, Options{}, startOrigin(t, slow).address(), startOrigin(t, slow).address())
	p.setPolicy(balancer.PolicySticky)
	p.setService(route.Service{
		Affinity: &route.Affinity{Cookie: "peer"}, Retry: route.Retry{Attempts: 2, Hedge: route.NewHedge(route.Hedging{After: time.Millisecond})},
	})
	answer, _ := p.get("/")
	_, cookie, _ := strings.Cut(answer, "\r\nSet-Cookie: ")
	cookie, _, _ = strings.Cut(cookie, "\r\n")
	eventually(t, "no request in flight", func() bool { return p.inflight() == 0 })
	left := p.outcomes()[balancer.OutcomeSuperseded]
	for range 10 {
		answer, _ = p.get("/", "Cookie: "+cookie)
		verify.That(t, !strings.Contains(answer, "Set-Cookie"), "got %q", answer)
	}
	eventually(t, "no request in flight", func() bool { return p.inflight() == 0 })
	verify.Equal(t, p.outcomes()[balancer.OutcomeSuperseded], left, "peers that were left")
}

// outcomes returns the outcomes at all peers.
func (p *testProxy) outcomes() map[balancer.OutcomeClass]uint64 {
	all := make(map[balancer.OutcomeClass]uint64)
	for _, peer := range p.pool.Snapshot().All {
		for class, n := range peer.Outcomes() {
			all[balancer.OutcomeClass(class)] += n
		}
	}
	return all
}
