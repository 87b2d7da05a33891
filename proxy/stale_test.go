package proxy

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/test/verify"
)

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
