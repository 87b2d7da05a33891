package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/test/verify"
)

// The connection count of an origin shows that connections are used again. That they are not behind
// an announced body that is none is in the seeds of FuzzProxyResponse.
func TestUpstreamConnectionsAreReused(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ method, response string }{
		{"GET", okResponse},
		{"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"},
		{"GET", "HTTP/1.1 204 No Content\r\n\r\n"},
		{"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"}, // what a 200 would have
		{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"},
	} {
		origin := startOrigin(t, answering(test.response))
		p := startProxy(t, Options{}, origin.address())
		conn := p.dial()
		for range 20 {
			fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: a\r\n\r\n", test.method)
			readResponseTo(t, conn, test.method)
		}
		verify.Equal(t, origin.connections(), 1, "%s, %q: connections to the peer", test.method, test.response)
	}
}

// A connection that the peer closed while it was idle loses no request, not
// even one that must not be sent twice.
func TestStaleConnection(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "POST"} {
		t.Run(method, func(t *testing.T) {
			origin := startOrigin(t, afterRequest(func(c *originConn) bool {
				io.WriteString(c.Conn, okResponse)
				return false // without Connection: close
			}))
			p := startProxy(t, Options{}, origin.address())
			conn := p.dial()
			for i := range 20 {
				fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", method)
				status, body := readResponse(t, conn)
				verify.Require(t, status == 200, "request %d: got %d %q", i, status, body)
				eventually(t, "the peer has closed", func() bool { return origin.open() == 0 })
			}
		})
	}
}

// Peers that cannot be connected to cost no request of any kind.
func TestRetryAfterConnectFailure(t *testing.T) {
	t.Parallel()
	good := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, append(nowhere, good.address())...)
	p.setService(route.Service{Retry: route.Retry{Attempts: 2}})
	conn := p.dial()
	for i := range 10 {
		body := strings.Repeat("x", 1+i%2*50000)
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		expectResponse(t, conn, 200)
	}
}

// A peer that accepts a request and never answers costs one try, where the
// request may be sent twice.
func TestPerTryTimeout(t *testing.T) {
	t.Parallel()
	// Enough for the good peer on a busy machine: if its try times out, the last one goes to
	// the hanging peer.
	const perTry = 2 * time.Second
	for _, test := range []struct {
		method  string
		timeout time.Duration // what counts for a request that must not be sent twice
		status  int
	}{{"GET", patience, 200}, {"PUT", patience, 200}, {"POST", time.Second, 504}} {
		t.Run(test.method, func(t *testing.T) {
			t.Parallel()
			hung := startOrigin(t, hanging)
			good := startOrigin(t, answering(okResponse))
			p := startProxy(t, Options{}, hung.address(), good.address())
			p.setService(route.Service{Timeouts: route.Timeouts{ResponseHeader: test.timeout}, Retry: route.Retry{Attempts: 2, PerTryTimeout: perTry}})
			conn := p.dial()
			for range 2 { // one of the two goes to the hanging peer first
				fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", test.method)
				status, body := readResponse(t, conn)
				verify.That(t, status == 200 || status == test.status, "got %d %q", status, body)
			}
			verify.That(t, hung.connections() != 0, "the hanging peer was never tried")
			verify.Equal(t, !strings.Contains(good.got(), "X-Sluice-Attempts: 2\r\n"), (test.status != 200), "the good peer got %q", good.got())
		})
	}
}

// minutePerTry are settings with a short time for a try, and a long one for the answer.
var minutePerTry = route.Service{
	Timeouts: route.Timeouts{ResponseHeader: 24 * time.Hour},
	Retry:    route.Retry{Attempts: 2, PerTryTimeout: time.Minute, BodyBytes: 16 << 20},
}

// An attempt without a connection does not count, so the one after it is not the last either.
func TestPerTryTimeoutAfterConnectFailure(t *testing.T) {
	t.Parallel()
	held := startHeldOrigin(t)
	p := startProxy(t, Options{}, nowhere[0], held.address(), answersOK(t))
	p.setPolicy(balancer.PolicyRandom)
	p.setService(minutePerTry)
	for range 30 { // one in six goes nowhere, then to the peer that is held
		conn, answered := p.send(heldRequest), make(chan int, 1)
		go func() {
			status, _ := readResponse(t, conn)
			answered <- status
		}()
		for status := 0; status == 0; {
			select {
			case <-held.arrived:
				p.skip(2 * time.Minute)
			case status = <-answered:
				verify.Equal(t, status, 200, "status")
			}
		}
		conn.Close()
	}
}

// The only peer has the whole time, also if it is the only one left meanwhile: there is none that
// could answer instead.
func TestNoPerTryTimeoutWithoutAnotherPeer(t *testing.T) {
	t.Parallel()
	for peers := 1; peers <= 2; peers++ {
		arrived, proceed := make(chan string, 1), make(chan struct{})
		held := afterRequest(func(c *originConn) bool {
			arrived <- c.LocalAddr().String()
			<-proceed
			return c.write(okResponse)
		})
		var addresses []string
		for range peers {
			addresses = append(addresses, startOrigin(t, held).address())
		}
		p := startProxy(t, Options{}, addresses...)
		p.setService(minutePerTry)
		conn := p.send(getRequest)
		p.setPeers(<-arrived)
		p.skip(2 * time.Minute)
		close(proceed)
		expectResponse(t, conn, 200)
	}
}

// A peer whose interim response has reached the client has the whole time, also to take the rest of
// the request: that cannot be sent again.
func TestNoPerTryTimeoutAfterAnInterimResponse(t *testing.T) {
	t.Parallel()
	// The second is more than the buffers of the sockets.
	for _, length := range []int{0, 16 << 20} {
		proceed := make(chan struct{})
		hinting := withHead(func(c *originConn, r *http.Request) bool {
			c.write("HTTP/1.1 103 Early Hints\r\n\r\n")
			<-proceed
			n, _ := io.Copy(io.Discard, r.Body)
			return int(n) == length && c.write(okResponse)
		})
		p := startProxy(t, Options{}, startOrigin(t, hinting).address(), startOrigin(t, hinting).address())
		p.setService(minutePerTry)
		conn := p.send(fmt.Sprintf("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", length, strings.Repeat("x", length)))
		expectNext(t, conn, "HTTP/1.1 103 Early Hints\r\n\r\n")
		p.skip(2 * time.Minute)
		close(proceed)
		expectResponse(t, conn, 200)
	}
}

// A peer that goes on with interim responses gets that time once.
func TestInterimResponsesDoNotProlongATry(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	hinting := func(c *originConn) bool {
		_, ok := c.request()
		for ok {
			if ok = c.write("HTTP/1.1 103 Early Hints\r\n\r\n"); ok {
				_, ok = <-proceed
			}
		}
		return false
	}
	p := startProxy(t, Options{}, startOrigin(t, hinting).address(), startOrigin(t, hinting).address())
	defer close(proceed)
	p.setService(minutePerTry)
	conn := p.send(heldRequest)
	for range 3 {
		expectNext(t, conn, "HTTP/1.1 103 Early Hints\r\n\r\n")
		p.skip(7 * time.Hour)
		proceed <- struct{}{}
	}
	expectNext(t, conn, "HTTP/1.1 103 Early Hints\r\n\r\n")
	p.skip(7 * time.Hour)
	expectResponse(t, conn, 504)
}

// All attempts together take no longer than the response header timeout.
func TestResponseHeaderTimeoutBoundsAllTries(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startOrigin(t, hanging).address(), startOrigin(t, hanging).address())
	p.setService(route.Service{Timeouts: route.Timeouts{ResponseHeader: 150 * time.Millisecond}, Retry: route.Retry{Attempts: 50, PerTryTimeout: 100 * time.Millisecond}})
	p.expect(closingRequest, "504")
}

// A body that is kept is sent to another peer, all of it, however it was framed, if the first one
// breaks. A longer one is not.
func TestKeptBodyIsSentAgain(t *testing.T) {
	t.Parallel()
	const kept = 250_000
	for _, size := range []int{10, 30_000, 60_000, 200_000, 300_000} {
		content := strings.Repeat("0123456789", size/10)
		var chunks strings.Builder
		for rest, n := content, 0; len(rest) > 0; rest = rest[n:] {
			n = min(1000+len(rest)%29_000, len(rest))
			fmt.Fprintf(&chunks, "%x\r\n%s\r\n", n, rest[:n])
		}
		for name, framed := range map[string]string{
			"length":  fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, content),
			"chunked": "Transfer-Encoding: chunked\r\n\r\n" + chunks.String() + "0\r\n\r\n",
		} {
			t.Run(fmt.Sprint(size, ", ", name), func(t *testing.T) {
				t.Parallel()
				var breaks atomic.Bool // the next peer
				serve := withHead(func(c *originConn, r *http.Request) bool {
					body, err := io.ReadAll(r.Body)
					return err == nil && !breaks.CompareAndSwap(true, false) && c.answer(string(body))
				})
				p := startProxy(t, Options{}, startOrigin(t, serve).address(), startOrigin(t, serve).address())
				p.setService(route.Service{Retry: route.Retry{Attempts: 2, BodyBytes: kept}})
				conn := p.dial()
				reader := bufio.NewReader(conn)
				for range 4 {
					breaks.Store(true)
					// The next request follows at once and must not be lost.
					io.WriteString(conn, "PUT / HTTP/1.1\r\nHost: a\r\n"+framed+getRequest)
					status, body := readResponseFrom(t, reader, "PUT")
					verify.That(t, status == 502 && size > kept || status == 200 && body == content && size <= kept, "got %d and %d bytes", status, len(body))
					status, body = readResponseFrom(t, reader, "GET")
					verify.That(t, status == 200 && body == "", "the next request got %d and %d bytes", status, len(body))
				}
				verify.That(t, !breaks.Load(), "no peer has broken the last request")
				eventually(t, "no memory is kept", func() bool { return p.keptBodies.Taken() == 0 })
			})
		}
	}
}

// The outcome of an attempt says what was asked for, so that a peer is compared with answers to
// the same.
func TestOutcomesHaveTheirEndpoint(t *testing.T) {
	t.Parallel()
	endpoints := make(chan uint32, 1)
	p := startProxyTo(t, false, Options{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	p.reconfigure(balancer.Options{OnFailure: func(_ *balancer.Peer, o balancer.Outcome, _ balancer.Streak) { endpoints <- o.Endpoint }})
	of := func(asked string) uint32 {
		t.Helper()
		p.expect(asked+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "500")
		return <-endpoints
	}
	first := of("GET /users/17?a=1")
	verify.That(t, first != 0 && first == of("GET /users/4711"), "two users differ, or have no number")
	for _, other := range []string{"POST /users/17", "GET /orders/17"} {
		verify.That(t, first != of(other), "%s is as GET /users/17", other)
	}
}

// staleWithin is the constant of package upstream.
const staleWithin = time.Second

// hasIdlePeerConnection reports whether there is an idle connection to a peer.
func (p *testProxy) hasIdlePeerConnection() bool {
	return slices.ContainsFunc(p.connectors.List(), func(c upstream.Connector) bool {
		idle, _ := c.Connections()
		return idle > 0
	})
}

// breaking answers GET requests, and has its way with any other one that comes
// on a connection that has been used.
func breaking(then func(c *originConn)) func(c *originConn) bool {
	return withRequest(func(c *originConn, r *http.Request) bool {
		if r.Method != "GET" && c.served > 0 {
			then(c)
			return false
		}
		return c.write(okResponse)
	})
}

// postOnUsed sends a POST on a connection to the peer that has been used, and
// returns the status of its answer.
func postOnUsed(t *testing.T, p *testProxy, body string) int {
	t.Helper()
	get(t, p, "GET")
	eventually(t, "an idle connection", p.hasIdlePeerConnection)
	conn := p.send("POST / HTTP/1.1\r\nHost: a\r\n" + body)
	defer conn.Close()
	for {
		if status, _ := readResponse(t, conn); status >= 200 {
			eventually(t, "nothing in flight", func() bool { return p.inflight() == 0 })
			return status
		}
	}
}

const shortBody = "Content-Length: 1\r\n\r\nx"

// A connection that is lost just when it is used again was closed before: that
// is no fault of the peer. But one that loses them again and again breaks them.
func TestPeerThatBreaksUsedConnections(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, breaking(func(*originConn) {}))
	p := startProxy(t, Options{}, origin.address())
	peer := p.pool.Snapshot().All[0]
	start := time.Now()
	verify.Equal(t, postOnUsed(t, p, shortBody), 502, "postOnUsed(t, p, shortBody)")
	soon := time.Since(start) < staleWithin // else the machine stood still
	outcomes := peer.Outcomes()
	verify.That(t, !soon || outcomes[balancer.OutcomeStale] == 1 && peer.Failures() <= 0, "the first time: outcomes %v", outcomes)
	eventually(t, "failures of the peer", func() bool {
		postOnUsed(t, p, shortBody)
		return peer.Outcomes()[balancer.OutcomeReset] > 3
	})
}

// Who leaves on the connection in place of a stale one has left, and no peer has failed.
func TestClientLeavesBehindAStaleConnection(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 1)
	origin := startOrigin(t, afterRequest(func(c *originConn) bool {
		if c.number == 1 {
			c.write(okResponse)
			return false // it closes the connection that is idle now
		}
		asked <- struct{}{}
		io.Copy(io.Discard, c) // until it is given up
		return false
	}))
	p := startLogged(t, Options{}, origin.address())
	p.setService(route.Service{Retry: route.Retry{Attempts: 1}})
	get(t, p.testProxy, "GET")
	eventually(t, "the peer has closed an idle connection", func() bool { return p.hasIdlePeerConnection() && origin.open() == 0 })
	conn := p.send(getRequest)
	<-asked
	conn.Close()
	lines := p.lines()
	verify.That(t, len(lines) == 2 && lines[1].Status == 499 && lines[1].Reason == "client_gone", "got %+v", lines)
}

// Where the peer has begun to answer, or has had the request for long, its
// connection had not been closed before.
func TestUsedConnectionIsLostByThePeer(t *testing.T) {
	t.Parallel()
	type test struct {
		body string
		then func(c *originConn)
	}
	eachCase(t, map[string]test{
		"after an interim response": {shortBody, func(c *originConn) {
			io.WriteString(c.Conn, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
		}},
		"later":                                {shortBody, func(*originConn) { time.Sleep(staleWithin + 50*time.Millisecond) }},
		"later, with a body that is passed on": {"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", func(*originConn) { time.Sleep(staleWithin + 50*time.Millisecond) }},
	}, func(t *testing.T, test test) {
		origin := startOrigin(t, breaking(test.then))
		p := startProxy(t, Options{}, origin.address())
		verify.Equal(t, postOnUsed(t, p, test.body), 502, "postOnUsed(t, p, test.body)")
		outcomes := p.pool.Snapshot().All[0].Outcomes()
		verify.That(t, outcomes[balancer.OutcomeReset] == 1, "outcomes %v", outcomes)
	})
}

func get(t *testing.T, p *testProxy, method string) (status int, body string) {
	t.Helper()
	conn := p.dial()
	defer conn.Close()
	fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: a\r\n\r\n", method)
	return readResponseTo(t, conn, method)
}
