package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/route"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// limit sets the pool's limits and retry budget.
func (p *testProxy) limit(limits balancer.Limits, budget *balancer.RetryBudget) {
	p.t.Helper()
	err := p.pool.Reconfigure(balancertest.Complete(balancer.Options{
		Policy: balancer.PolicyRoundRobin, NewTransport: p.NewTransport(transportOf(p.t)),
		Limits: limits, RetryBudget: budget,
	}))
	verify.NoError(p.t, err)
}

const closingRequest = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

func expectReason(t *testing.T, answer, status, reason string) {
	t.Helper()
	verify.That(t, strings.HasPrefix(answer, "HTTP/1.1 "+status+" ") && strings.Contains(answer, "\r\nX-Sluice-Reason: "+reason+"\r\n"), "got %q, want %s and the reason %s", answer, status, reason)
}

// A service that is too slow for what it gets fails at once beyond its limits.
func TestLimitsAreAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	arrived, answer := make(chan struct{}), make(chan struct{})
	origin := startOrigin(t, afterRequest(func(c *originConn) bool {
		arrived <- struct{}{}
		<-answer
		return c.write(okResponse)
	}))
	p := startProxy(t, Options{}, origin.address())
	for _, test := range []struct {
		limits balancer.Limits
		reason string
	}{
		{balancer.Limits{Requests: 1}, "too_many_requests"},
		{balancer.Limits{PeerRequests: 1}, "peers_saturated"},
	} {
		p.limit(test.limits, nil)
		conn := p.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		<-arrived
		expectReason(t, p.raw(closingRequest), "503", test.reason)
		answer <- struct{}{}
		expectResponse(t, conn, 200)
		// The client has its answer a moment before the request has left the pool.
		eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
		go func() { <-arrived; answer <- struct{}{} }()
		got := p.raw(closingRequest)
		verify.That(t, strings.HasPrefix(got, "HTTP/1.1 200 "), "%s: got %q when there is room again", test.reason, got)
	}
}

func TestPendingRequestsAreBounded(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{})
	p.limit(balancer.Limits{Pending: 1}, nil)
	p.setService(route.Service{Timeouts: defaultTimeouts(), Retry: route.Retry{Attempts: 1}, WaitForPeer: patience})
	conn := p.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	eventually(t, "a pending request", func() bool { return p.pool.Pending() == 1 })
	expectReason(t, p.raw(closingRequest), "503", "too_many_pending")
	p.setPeers(origin.address())
	expectResponse(t, conn, 200)
}

// Where no retry is to be had, the answer tells of the first failure.
func TestWithoutRetryBudgetTheFirstFailureIsTheAnswer(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, nowhere[0], origin.address())
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
	verify.Equal(t, p.pool.Refusals()[balancer.LimitRetryBudget], 2, "the budget stopped retries")
	p.limit(balancer.Limits{}, &balancer.RetryBudget{Ratio: 1, MinPerSecond: 10})
	for range 4 {
		answer := p.raw(closingRequest)
		verify.That(t, strings.HasPrefix(answer, "HTTP/1.1 200 "), "with a budget: got %q", answer)
	}
}

// Beyond the connections that a peer may have, requests wait for one of them.
func TestConnectionsPerPeer(t *testing.T) {
	t.Parallel()
	arrived, answer := make(chan string), make(chan struct{})
	origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
		arrived <- r.URL.Path
		<-answer
		return c.write(okResponse)
	}))
	p := startProxy(t, Options{}, origin.address())
	p.limit(balancer.Limits{PeerConnections: 1, Pending: 10}, nil)
	wait := func(timeout time.Duration) {
		p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 1}, ConnectionWait: timeout})
	}
	wait(patience)
	var conns []net.Conn
	for i := range 4 {
		conn := p.dial()
		conns = append(conns, conn)
		fmt.Fprintf(conn, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
		if i == 0 {
			<-arrived
		} else {
			eventually(t, "it waits", func() bool { return p.pool.Pending() == i })
		}
	}

	// Who goes away while it waits is not sent.
	conns[1].Close()
	eventually(t, "nobody waits for the client that has gone", func() bool { return p.pool.Pending() == 2 })
	for i, conn := range conns {
		if i == 1 {
			continue
		}
		if i > 0 {
			verify.Equal(t, <-arrived, fmt.Sprintf("/%d", i), "the peer")
		}
		answer <- struct{}{}
		expectResponse(t, conn, 200)
	}
	eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
	origin.mu.Lock()
	verify.Equal(t, origin.accepted, 1, "connections to the peer")
	origin.mu.Unlock()

	wait(time.Millisecond)
	io.WriteString(conns[0], "GET /0 HTTP/1.1\r\nHost: a\r\n\r\n")
	<-arrived
	expectReason(t, p.raw(closingRequest), "503", "connections_saturated")
	answer <- struct{}{}
	readResponse(t, conns[0])
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
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				status, body := readResponse(t, conn)
				verify.That(t, status == 200 || strings.Contains(body, "broke off"), "got %d %s", status, body)
			}
		})
	}
	wg.Wait()
	verify.Equal(t, most, limit, "there were connections")
}
