package proxy

import (
	"fmt"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/route"
)

// fail has the checks of the peer fail.
func (p *testProxy) fail(address string) {
	for _, peer := range p.pool.Snapshot().All {
		if peer.Address() == address {
			p.pool.SetReasons(balancer.ReasonActive, balancer.Verdict{Peer: peer, Down: true})
		}
	}
}

// A request moves on when the checks of its peers fail, as soon as there is another one, and the peers that it
// has left are not to blame. TestEveryWaitEnds has the other kinds of requests, and those that stay.
func TestRequestLeavesAPeerWhoseChecksFail(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, request string }{
		{"GET", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"GET, hedged", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"PUT", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			first, second, third := startOrigin(t, hanging), startOrigin(t, hanging), startOrigin(t, answersAfter(0, "third"))
			p := startProxy(t, Options{}, first.address())
			s := route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 3}}
			if test.name == "GET, hedged" {
				s.Retry.Hedge = &route.Hedge{After: time.Millisecond}
			}
			p.setService(s)
			conn := p.dial()
			fmt.Fprint(conn, test.request)
			eventually(t, "the first peer is asked", func() bool { return p.inflight() == 1 })
			// The next one hangs, too, and is found out later.
			p.setPeers(first.address(), second.address())
			p.fail(first.address())
			eventually(t, "the second peer is asked", func() bool { return second.connections() == 1 })
			p.setPeers(first.address(), second.address(), third.address())
			p.fail(second.address())
			expectResponse(t, conn, 200, "third")
			eventually(t, "nothing in flight", func() bool { return p.inflight() == 0 && first.open()+second.open() == 0 })
			p.expectNothingCounted()
		})
	}
}
