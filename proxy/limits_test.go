package proxy

import (
	"io"
	"strings"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/route"
)

// limit sets the pool's limits and retry budget.
func (p *testProxy) limit(limits balancer.Limits, budget *balancer.RetryBudget) {
	p.t.Helper()
	err := p.pool.Reconfigure(balancer.Options{
		Policy: balancer.PolicyRoundRobin, NewTransport: p.NewTransport(TransportOptions{}),
		Limits: limits, RetryBudget: budget,
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

const closingRequest = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

func expectReason(t *testing.T, answer, status, reason string) {
	t.Helper()
	if !strings.HasPrefix(answer, "HTTP/1.1 "+status+" ") || !strings.Contains(answer, "\r\nX-Sluice-Reason: "+reason+"\r\n") {
		t.Errorf("got %q, want %s and the reason %s", answer, status, reason)
	}
}

// A service that is too slow for what it gets fails at once beyond its limits.
func TestLimitsAreAnsweredAtOnce(t *testing.T) {
	arrived, answer := make(chan struct{}), make(chan struct{})
	origin := startOrigin(t, func(c *originConn) bool {
		if _, ok := c.request(); !ok {
			return false
		}
		arrived <- struct{}{}
		<-answer
		_, err := io.WriteString(c, okResponse)
		return err == nil
	})
	p := startProxy(t, Options{}, origin.address())
	for _, test := range []struct {
		limits balancer.Limits
		reason string
	}{
		{balancer.Limits{Requests: 1}, "too_many_requests"},
		{balancer.Limits{PeerRequests: 1}, "peers_saturated"},
	} {
		p.limit(test.limits, nil)
		conn := p.dial()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		<-arrived
		expectReason(t, p.raw(closingRequest), "503", test.reason)
		answer <- struct{}{}
		if status, _ := readResponse(t, conn); status != 200 {
			t.Errorf("%s: status %d for the first request, want 200", test.reason, status)
		}
		// The client has its answer a moment before the request has left the pool.
		eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
		go func() { <-arrived; answer <- struct{}{} }()
		if got := p.raw(closingRequest); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("%s: got %q when there is room again", test.reason, got)
		}
	}
}

func TestPendingRequestsAreBounded(t *testing.T) {
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{})
	p.limit(balancer.Limits{Pending: 1}, nil)
	p.setService(route.Service{Timeouts: defaultTimeouts(), Retry: route.Retry{Attempts: 1}, WaitForPeer: 10 * time.Second})
	conn := p.dial()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	eventually(t, "a pending request", func() bool { return p.pool.Pending() == 1 })
	expectReason(t, p.raw(closingRequest), "503", "too_many_pending")
	p.setPeers(origin.address())
	if status, _ := readResponse(t, conn); status != 200 {
		t.Errorf("status %d for the request that waited, want 200", status)
	}
}

// Where no retry is to be had, the answer tells of the first failure.
func TestWithoutRetryBudgetTheFirstFailureIsTheAnswer(t *testing.T) {
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
	if failed != 2 {
		t.Errorf("%d requests failed, want 2", failed)
	}
	if got := p.pool.Refusals()[balancer.LimitRetryBudget]; got != 2 {
		t.Errorf("the budget stopped %d retries, want 2", got)
	}
	p.limit(balancer.Limits{}, &balancer.RetryBudget{Ratio: 1, MinPerSecond: 10})
	for range 4 {
		if answer := p.raw(closingRequest); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
			t.Errorf("with a budget: got %q", answer)
		}
	}
}
