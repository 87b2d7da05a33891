package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/route/places"
	"sluice/test/verify"
)

// limit sets the pool's limits and retry budget.
func (p *testProxy) limit(limits balancer.Limits, budget *balancer.RetryBudget) {
	p.t.Helper()
	p.reconfigure(balancer.Options{Policy: balancer.PolicyRoundRobin, Limits: limits, RetryBudget: budget})
}

// A service that is too slow for what it gets fails at once beyond its limits.
func TestLimitsAreAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	origin := startHeldOrigin(t)
	p := startProxy(t, Options{}, origin.address())
	for _, test := range []struct {
		limits balancer.Limits
		reason string
	}{
		{balancer.Limits{Requests: 1}, "too_many_requests"},
		{balancer.Limits{PeerRequests: 1}, "peers_saturated"},
		// It is answered after a wait.
		{balancer.Limits{PeerConnections: 1, Pending: 10}, "connections_saturated"},
	} {
		p.limit(test.limits, nil)
		p.setService(route.Service{Retry: route.Retry{Attempts: 3}, ConnectionWait: time.Millisecond})
		conn := p.send(heldRequest)
		<-origin.arrived
		expectReason(t, p.raw(closingRequest), "503", test.reason)
		origin.proceed <- struct{}{}
		expectResponse(t, conn, 200)
		// The client has its answer a moment before the request has left the pool.
		eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
		p.expect(closingRequest, "200") // there is room again
	}
}

// Clients of a trusted proxy are told apart: who fills all places to wait leaves one to another.
func TestAClientOfAProxyLeavesRoomToWait(t *testing.T) {
	t.Parallel()
	const pending, requests = 4, 10
	p := startProxy(t, Options{TrustedProxies: loopback})
	p.limit(balancer.Limits{Pending: pending}, nil)
	p.setService(route.Service{Retry: route.Retry{Attempts: 1}, WaitForPeer: patience})
	type result struct{ client, answer string }
	results := make(chan result, requests+1)
	send := func(client string) {
		conn := p.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: " + client + "\r\nConnection: close\r\n\r\n")
		go func() {
			r, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				results <- result{client, err.Error()}
				return
			}
			results <- result{client, fmt.Sprintf("%d %s", r.StatusCode, r.Header.Get("X-Sluice-Reason"))}
		}()
	}
	for range requests {
		send("192.0.2.1")
	}
	for range requests - pending {
		verify.Equal(t, <-results, result{"192.0.2.1", "503 too_many_pending"}, "who finds no room")
	}
	send("192.0.2.2")
	verify.Equal(t, <-results, result{"192.0.2.1", "503 too_many_pending"}, "who makes room")
	p.setPeers(answersOK(t))
	answered := make(map[result]int)
	for range pending {
		answered[<-results]++
	}
	verify.Equal(t, answered[result{"192.0.2.1", "200 "}], pending-1, "answers for the first client")
	verify.Equal(t, answered[result{"192.0.2.2", "200 "}], 1, "answers for the second one")
}

// Where no retry is to be had, the answer tells of the first failure.
func TestWithoutRetryBudgetTheFirstFailureIsTheAnswer(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, nowhere[0], answersOK(t))
	p.limit(balancer.Limits{}, &balancer.RetryBudget{})
	failed := 0
	for range 4 { // in turns, so half of them go to nobody
		answer := p.raw(closingRequest)
		if strings.HasPrefix(answer, "HTTP/1.1 200 ") {
			continue
		}
		failed++
		expectReason(t, answer, "502", "connect_failed")
	}
	verify.Equal(t, failed, 2, "requests failed")
	verify.Equal(t, p.pool.Admission.Refusals()[balancer.LimitRetryBudget], 2, "the budget stopped retries")
	p.limit(balancer.Limits{}, &balancer.RetryBudget{Ratio: 1, MinPerSecond: 10})
	for range 4 {
		p.expect(closingRequest, "200")
	}
}

// Whatever becomes of connections, there are never more of them than allowed.
func TestConnectionsPerPeerAreNeverExceeded(t *testing.T) {
	t.Parallel()
	const limit, clients, requests = 3, 20, 30
	var p *testProxy
	var answers atomic.Int64
	var mu sync.Mutex
	var first sync.WaitGroup // the requests on the first connections wait for each other
	first.Add(limit)
	most := 0 // guarded by mu
	p = startProxy(t, Options{}, startOrigin(t, afterRequest(func(c *originConn) bool {
		if c.number <= limit && c.served == 0 {
			first.Done()
			first.Wait()
		}
		for _, transport := range p.connectors.List() {
			idle, busy := transport.Connections()
			mu.Lock()
			most = max(most, idle+busy)
			mu.Unlock()
		}
		io.WriteString(c, okResponse)
		return answers.Add(1)%7 != 0 // or closes without a word
	})).address())
	p.limit(balancer.Limits{PeerConnections: limit, Pending: clients}, nil)
	p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 2}, ConnectionWait: patience})
	var wg sync.WaitGroup
	for range clients {
		conn := p.dial()
		wg.Go(func() {
			for range requests {
				conn.SetDeadline(time.Now().Add(patience))
				io.WriteString(conn, getRequest)
				status, body := readResponse(t, conn)
				verify.That(t, status == 200 || strings.Contains(body, "broke off"), "got %d %s", status, body)
			}
		})
	}
	wg.Wait()
	verify.Equal(t, most, limit, "there were connections")
}

// overload lets the pool see an overload, by attempts of its own, and fills it up to the limit for
// normal requests.
func (p *testProxy) overload() {
	p.t.Helper()
	p.limit(balancer.Limits{Adaptive: true, AdaptiveMin: 4}, nil)
	for _, latency := range []time.Duration{time.Millisecond, time.Second} {
		for begin := time.Now(); p.pool.Snapshot().Overload().Tiers[0].Limit == 0 && (latency > time.Millisecond || time.Since(begin) < 500*time.Millisecond); {
			t, err := p.pool.Pick(nil)
			verify.NoError(p.t, err)
			t.Done(balancer.Outcome{Class: balancer.OutcomeOK, Latency: latency})
		}
	}
	for {
		t, err := p.pool.Pick(nil)
		if err == balancer.ErrOverload {
			return
		}
		verify.NoError(p.t, err)
		p.t.Cleanup(func() { t.Done(balancer.Outcome{Class: balancer.OutcomeLocal}) })
	}
}

// An overloaded service refuses normal requests before it reads a body, and critical ones go on.
// What has begun to answer does not count.
func TestOverloadedServiceRefuses(t *testing.T) {
	t.Parallel()
	origin := startHeldOrigin(t)
	p := startProxy(t, Options{}, origin.address())
	p.overload()
	waiting := func() int { return p.pool.Snapshot().Overload().Tiers[0].Waiting }
	full := waiting()

	p.setService(route.Service{Retry: route.Retry{Attempts: 2, BodyBytes: 100_000}})
	expectResponse(t, p.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n"), 503) // the body would be kept, and never comes
	answer := p.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
	expectReason(t, answer, "503", "overload")
	verify.That(t, strings.Contains(answer, "\r\nRetry-After: 1\r\n"), "no Retry-After: %q", answer)

	p.setActions(&route.Actions{Criticality: balancer.CriticalityCritical})
	conn := p.send(heldRequest)
	<-origin.arrived
	verify.Equal(t, waiting(), full+1, "attempts wait for an answer")
	origin.proceed <- struct{}{}
	expectResponse(t, conn, 200)
	eventually(t, "it has its answer", func() bool { return waiting() == full })
	verify.Equal(t, p.pool.Snapshot().Overload().Shed[balancer.CriticalityNormal] > 0, true, "refusals of normal requests are counted")

	p.address = p.serveWith(ListenerOptions{Name: "db", Streams: p.target}) // a critical connection goes on too
	stream := p.stream()
	io.WriteString(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	expectResponse(t, stream, 200)
}

func TestAdmission(t *testing.T) {
	a := &admission{perBlock: make(map[places.Block]int)}
	a.configure(Limits{Connections: 6, ConnectionsPerAddress: 2}, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	for _, step := range []string{
		"admit 1.1.1.1", "admit 1.1.1.1", "refuse 1.1.1.1", "admit 1.1.1.2",
		"admit 2001:db8::1", "admit 2001:db8::ffff:1", "refuse 2001:db8::2", // the same /64
		"leave 1.1.1.1", "admit 1.1.1.1",
		"admit 10.0.0.1", "refuse 10.0.0.1", // the sixth
		"leave 2001:db8::1", "admit 10.0.0.1", "leave 10.0.0.1", "admit 10.0.0.1",
	} {
		do, address, _ := strings.Cut(step, " ")
		if client := netip.MustParseAddr(address); do == "leave" {
			a.leave(client)
		} else {
			verify.Equal(t, a.admit(client, false), do == "admit", "%s", step)
		}
	}
}

// A client with too many connections is told so, even if it has sent its request before it was
// accepted: what is unread when a connection is closed makes the system reset it. Others go on.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Limits: Limits{Connections: 100, ConnectionsPerAddress: 1}}, answersOK(t))
	first, l := p.dial(), listen(t)
	eventually(t, "a connection", func() bool { return p.Connections() == 1 })
	second := dialFrom(t, "127.0.0.1", l.Addr().String())
	io.WriteString(second, closingRequest)
	p.serveOn(l, ListenerOptions{Name: "later"})
	answer, err := io.ReadAll(second)
	verify.Succeeds(t, err)
	expectReason(t, string(answer), "503", "too_many_connections")
	verify.Equal(t, p.Stats().Refused, 1, "refused")
	verify.Succeeds(t, get200(p.dialFrom("127.0.0.2")))
	io.WriteString(first, closingRequest)
	expectResponse(t, first, 200)
	eventually(t, "a free place", func() bool { return p.Connections() == 0 })
	p.expect(closingRequest, "200")
}

// Networks of IPv4-mapped addresses are those of the IPv4 addresses, and so are
// the addresses of clients at a socket for both versions.
func TestTrustedNetworksOfMappedAddresses(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	for _, address := range []string{"127.0.0.1:0", "[::]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Skip(err) // no IPv6 here
		}
		p := startProxy(t, Options{}, origin.address())
		p.serveOn(l, ListenerOptions{Name: "other"})
		p.address = fmt.Sprintf("127.0.0.1:%d", l.Addr().(*net.TCPAddr).Port)
		for network, trusted := range map[string]bool{
			"::ffff:127.0.0.0/104": true, "::ffff:127.0.0.1/128": true, "127.0.0.1/32": true, "::ffff:127.0.0.0/103": true,
			"::ffff:10.0.0.0/104": false, "::1/128": false,
		} {
			p.change(func(o *Options) { o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(network)} })
			before := len(origin.got())
			p.raw("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n")
			verify.Equal(t, strings.Contains(origin.got()[before:], "6.6.6.6"), trusted, "%s trusts %s", address, network)
		}
	}
}

// Streams that have ended soon count as connections no more, also beside a WebSocket, which stays
// open for hours.
func TestUnusedStreamsGiveTheirPlacesBack(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
		if r.URL.Path != "/ws" {
			return c.write(okResponse)
		}
		c.write(switching(r.Header.Get("Sec-WebSocket-Key")) + "hello ")
		io.Copy(c.Conn, c.Reader)
		return false
	}))
	// open opens streams, each with a request whose end is to come, and answered ends them.
	open := func(c *frameClient, ids ...uint32) {
		for _, id := range ids {
			c.request(id, http2Post, false)
		}
	}
	answered := func(t *testing.T, c *frameClient, ids ...uint32) {
		for _, id := range ids {
			c.WriteData(id, true, nil)
			r := c.response(id)
			verify.Require(t, r.status == "200", "stream %d: %+v", id, r)
		}
	}
	for name, test := range map[string]struct {
		limits socket.ConnectionLimits
		do     func(t *testing.T, p *testProxy, c *frameClient)
	}{
		"before it": {do: func(t *testing.T, _ *testProxy, c *frameClient) {
			open(c, 1, 3, 5, 7)
			answered(t, c, 1, 3, 5, 7)
			c.openTunnel(9)
		}},
		"beside it": {do: func(t *testing.T, _ *testProxy, c *frameClient) {
			c.openTunnel(1)
			open(c, 3, 5, 7, 9)
			answered(t, c, 3, 5, 7, 9)
		}},
		"beside it, before the end of a frame": {do: func(t *testing.T, _ *testProxy, c *frameClient) {
			c.openTunnel(1)
			open(c, 3, 5, 7, 9)
			answered(t, c, 3, 5, 7)
			c.WriteData(9, true, nil)
			io.WriteString(c.conn, "\x00\x00") // of a frame of the tunnel
			r := c.response(9)
			verify.Require(t, r.status == "200", "%+v", r)
			io.WriteString(c.conn, "\x01\x00\x00\x00\x00\x00\x01x")
			c.expectBytes(1, "x")
		}},
		"after GOAWAY": {socket.ConnectionLimits{MaxRequests: 5}, func(t *testing.T, p *testProxy, c *frameClient) {
			c.openTunnel(1)
			open(c, 3, 5, 7, 9)
			for last := false; !last; {
				switch f := c.read().(type) {
				case *xhttp2.PingFrame:
					p.skip(http2GoAwayTimeout)
				case *xhttp2.GoAwayFrame:
					last = f.LastStreamID == 9
				default:
					t.Fatalf("got %v", f)
				}
			}
			answered(t, c, 3, 5, 7, 9)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t, Options{Connections: test.limits}, origin.address())
			c := p.dialFrames()
			test.do(t, p, c)
			eventually(t, "only the WebSocket has a place", func() bool { return p.admission.total() == 1 })
		})
	}
}
