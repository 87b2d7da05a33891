package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/route"
	"sluice/test/verify"
)

// limit sets the pool's limits and retry budget.
func (p *testProxy) limit(limits balancer.Limits, budget *balancer.RetryBudget) {
	p.t.Helper()
	p.reconfigure(balancer.Options{Policy: balancer.PolicyRoundRobin, Limits: limits, RetryBudget: budget})
}

func expectReason(t *testing.T, answer, status, reason string) {
	t.Helper()
	verify.That(t, strings.HasPrefix(answer, "HTTP/1.1 "+status+" ") && strings.Contains(answer, "\r\nX-Sluice-Reason: "+reason+"\r\n"), "got %q, want %s and the reason %s", answer, status, reason)
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
