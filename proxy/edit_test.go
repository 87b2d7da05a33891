package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"sluice/balancer"
	"sluice/route"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// visibleEdits change something in every request and response.
func visibleEdits(t testing.TB) *route.Actions {
	return &route.Actions{
		Path:            pathEdits(t, route.PathOptions{Strip: "/api", Add: "/v1"}),
		HostOfPeer:      true,
		RequestHeaders:  headerEdits(t, map[string]string{"X-Set": "request"}, nil, "X-Gone"),
		ResponseHeaders: headerEdits(t, map[string]string{"X-Set": "response"}, nil, "X", "Set-Cookie"),
	}
}

// The response that switches protocols is edited, and the tunnel works.
func TestEditsOfAnUpgrade(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, echoing)
	p := startProxy(t, Options{}, origin.address())
	p.setActions(visibleEdits(t))
	conn := p.send(strings.Replace(upgradeRequest, "/ws", "/api/ws", 1) + "early")
	reader := bufio.NewReader(conn)
	r, err := http.ReadResponse(reader, nil)
	verify.Require(t, err == nil && r.StatusCode == 101 && r.Header.Get("Upgrade") == "echo" && r.Header.Get("X-Set") == "response" && r.Header.Get("X") == "", "got %+v, %v", r, err)
	closeWrite(t, conn)
	expectRest(t, reader, "hello early")
	if got := origin.got(); !strings.HasPrefix(got, "GET /v1/ws HTTP/1.1\r\nHost: "+origin.address()+"\r\n") || strings.Count(got, "Host: ") != 2 {
		t.Errorf("the peer got %q", got) // the other one is X-Forwarded-Host
	}
}

// Interim responses are not edited, and the cookie for the peer is not removed.
func TestEditsOfInterimResponsesAndCookies(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
		io.WriteString(c.Conn, "HTTP/1.1 100 Continue\r\nX: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: 2\r\n\r\n")
		body, _ := io.ReadAll(r.Body)
		_, err := fmt.Fprintf(c.Conn, "HTTP/1.1 200 OK\r\nX: 3\r\nSet-Cookie: own=1\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return err == nil
	}))
	p := startProxy(t, Options{}, origin.address())
	verify.NoError(t, p.pool.Reconfigure(balancertest.Complete(balancer.Options{Policy: balancer.PolicySticky, NewTransport: p.NewTransport(someTransport)})))
	p.setService(route.Service{Timeouts: defaultTimeouts(), Retry: route.Retry{Attempts: 3}, Affinity: &route.Affinity{Cookie: "peer"}})
	p.setActions(visibleEdits(t))
	conn := p.dial()
	reader := bufio.NewReader(conn)
	for range 2 {
		io.WriteString(conn, "POST /api HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
		for _, want := range []string{"100 1 ", "103 2 ", "200  response"} {
			r := verify.Result(http.ReadResponse(reader, nil)).Must(t)
			verify.Equal(t, fmt.Sprint(r.StatusCode, " ", r.Header.Get("X"), " ", r.Header.Get("X-Set")), want, "result")
			if r.StatusCode == 100 {
				io.WriteString(conn, "4\r\nbody\r\n0\r\n\r\n")
			}
			if r.StatusCode == 200 {
				body, err := io.ReadAll(r.Body)
				verify.That(t, err == nil && string(body) == "body", "body %q, %v", body, err)
				cookies := r.Cookies()
				verify.That(t, len(cookies) == 1 && cookies[0].Name == "peer", "cookies %v", cookies)
			}
		}
	}
}

// Each attempt gets the same edits, with the address of its own peer.
func TestEditsOfRetries(t *testing.T) {
	t.Parallel()
	reset := startOrigin(t, func(c *originConn) bool { c.request(); return false })
	fine := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, reset.address(), fine.address())
	p.setActions(visibleEdits(t))
	conn := p.dial()
	for range 6 {
		io.WriteString(conn, "GET /api/x HTTP/1.1\r\nHost: a\r\nX-Gone: 1\r\n\r\n")
		expectResponse(t, conn, 200, "ok")
	}
	verify.That(t, reset.got() != "", "no request was sent again")
	for _, o := range []*origin{reset, fine} {
		got := o.got()
		requests := strings.Count(got, "GET /v1/x HTTP/1.1\r\nHost: "+o.address()+"\r\n")
		verify.That(t, requests == strings.Count(got, "GET ") && !strings.Contains(got, "X-Gone") && strings.Count(got, "X-Set: request\r\n") == requests, "the peer got %q", got)
	}
}

// A hedge has the address of the second peer.
func TestEditsOfHedges(t *testing.T) {
	t.Parallel()
	slow := startOrigin(t, hanging)
	fast := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, slow.address(), fast.address())
	hedged(p, 2)
	p.setActions(visibleEdits(t))
	for range 4 {
		status, _ := get(t, p, "GET")
		verify.That(t, status == 200, "status %d", status)
	}
	eventually(t, "no request in flight", func() bool { return p.inflight() == 0 })
	verify.That(t, slow.got() != "", "the slow peer was never asked")
	for _, o := range []*origin{slow, fast} {
		if got := o.got(); strings.Count(got, "\r\nHost: "+o.address()+"\r\n") != strings.Count(got, "GET ") {
			t.Errorf("%s got %q", o.address(), got)
		}
	}
}

// A body without a length is counted while it arrives.
func TestBodyLimitOfARoute(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{Limits: Limits{BodyBytes: 1000}}, origin.address())
	for _, test := range []struct {
		limit int64
		bytes int
		want  string
	}{
		{0, 900, "200"}, {0, 1001, "413"}, {500, 500, "200"}, {500, 501, "413"}, {2000, 1001, "413"},
	} {
		p.setActions(&route.Actions{BodyLimit: test.limit})
		for _, framing := range []string{
			fmt.Sprintf("Content-Length: %d\r\n\r\n%s", test.bytes, strings.Repeat("x", test.bytes)),
			fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", test.bytes, strings.Repeat("x", test.bytes)),
		} {
			answer := p.raw("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + framing)
			verify.That(t, strings.HasPrefix(answer, "HTTP/1.1 "+test.want+" "), "%d bytes, limit %d: got %q, want %s", test.bytes, test.limit, answer, test.want)
		}
	}
}

// A response that has too many fields with the edits is not forwarded.
func TestEditsOfALongHead(t *testing.T) {
	t.Parallel()
	for fields, want := range map[int]string{98: "200", 100: "502"} {
		origin := startOrigin(t, answering("HTTP/1.1 200 OK\r\n"+strings.Repeat("X-A: 1\r\n", fields-1)+"Content-Length: 2\r\n\r\nok"))
		p := startProxy(t, Options{}, origin.address())
		p.setActions(visibleEdits(t))
		answer := p.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		verify.That(t, strings.HasPrefix(answer, "HTTP/1.1 "+want+" "), "%d fields: got %q", fields, answer)
	}
}
