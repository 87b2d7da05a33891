package proxy

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/route"
	"sluice/test/verify"
)

// answersOnce answers a request as soon as goOn is closed.
func answersOnce(goOn <-chan struct{}) func(c *originConn) bool {
	return afterRequest(func(c *originConn) bool {
		<-goOn
		fmt.Fprint(c.Conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
		return true
	})
}

// waitFor sends a request that a hanging peer gets.
func waitFor(t *testing.T, p *testProxy, request string) net.Conn {
	t.Helper()
	conn := p.dial()
	before := p.inflight()
	fmt.Fprint(conn, request)
	eventually(t, "a request in flight", func() bool { return p.inflight() == before+1 })
	return conn
}

// fail has the checks of the peer fail.
func (p *testProxy) fail(address string) {
	for _, peer := range p.pool.Snapshot().All {
		if peer.Address() == address {
			p.pool.SetReason(peer.ID, balancer.ReasonActive, true, "")
		}
	}
}

func patientService(attempts int) route.Service {
	timeouts := defaultTimeouts()
	timeouts.ResponseHeader = time.Hour
	return route.Service{Timeouts: timeouts, Retry: route.Retry{Attempts: attempts}}
}

func TestRequestLeavesAPeerWhoseChecksFail(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]string{
		"GET": "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"PUT": "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
	} {
		t.Run(name, func(t *testing.T) {
			hang := func(c *originConn) bool { // until it is given up
				c.request()
				io.ReadAll(c.Conn)
				return false
			}
			first, second := startOrigin(t, hang), startOrigin(t, hang)
			third := startOrigin(t, answersAfter(0, "third"))
			p := startProxy(t, Options{}, first.address())
			p.setService(patientService(2))
			conn := waitFor(t, p, request)
			// The next one hangs, too, and is found out later.
			p.setPeers(first.address(), second.address())
			p.fail(first.address())
			eventually(t, "the second peer is asked", func() bool { return second.connections() == 1 })
			p.setPeers(first.address(), second.address(), third.address())
			p.fail(second.address())
			expectResponse(t, conn, 200, "third")
			eventually(t, "nothing in flight", func() bool { return p.inflight() == 0 && first.open() == 0 })
			for _, peer := range p.pool.Snapshot().All {
				n := peer.Failures()
				verify.That(t, n <= 0, "%s is to blame for %d failures", peer.Address(), n)
			}
		})
	}
}

// It may still answer.
func TestRequestStaysWithAPeerWhoseChecksFail(t *testing.T) {
	t.Parallel()
	const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, test := range []struct {
		name, request string
		attempts      int
		another       bool // peer is there
	}{
		{"POST", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 2, true},
		{"PUT of a long body", "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 2, true},
		{"one attempt", get, 1, true},
		{"no other peer", get, 2, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			goOn := make(chan struct{})
			suspect := startOrigin(t, answersOnce(goOn))
			p := startProxy(t, Options{}, suspect.address())
			p.setService(patientService(test.attempts))
			conn := waitFor(t, p, test.request)
			if test.another {
				other := startOrigin(t, answersAfter(0, "other"))
				p.setPeers(suspect.address(), other.address())
			}
			p.fail(suspect.address())
			close(goOn)
			expectResponse(t, conn, 200, "late")
			eventually(t, "nothing in flight", func() bool { return p.inflight() == 0 })
		})
	}
}

// A hedged request moves on when the checks of its peers fail, and one whose only peer is
// suspected moves to a peer that comes later.
func TestHedgedRequestLeavesPeersWhoseChecksFail(t *testing.T) {
	t.Parallel()
	for _, asked := range []int{1, 2} {
		t.Run(fmt.Sprint(asked, " peers hang"), func(t *testing.T) {
			t.Parallel()
			first, second := startOrigin(t, hanging), startOrigin(t, hanging)
			third := startOrigin(t, answersAfter(0, "third"))
			addresses := []string{first.address(), second.address()}[:asked]
			p := startProxy(t, Options{}, addresses...)
			s := patientService(3)
			s.Retry.Hedge = &route.Hedge{After: time.Millisecond}
			p.setService(s)
			conn := p.dial()
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			eventually(t, "the peers are asked", func() bool { return p.inflight() == asked })
			for _, address := range addresses {
				p.fail(address)
			}
			p.setPeers(append(addresses, third.address())...)
			expectResponse(t, conn, 200, "third")
			eventually(t, "nothing in flight", func() bool { return p.inflight() == 0 && first.open()+second.open() == 0 })
			p.expectNothingCounted()
		})
	}
}
