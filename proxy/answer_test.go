package proxy

import (
	"fmt"
	"strings"
	"testing"

	"sluice/route"
	"sluice/test/verify"
)

func TestNoRoute(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	p.setRoutes(route.Route{Host: "a", Path: "/x", Service: p.service})
	conn := p.dial()
	for _, test := range []struct {
		target, host string
		status       int
	}{
		{"/", "a", 404}, {"/x", "b", 404}, {"/xy", "a", 404}, {"/x", "A:80", 503}, {"/x/y?z", "a", 503}, {"http://a/x", "b", 503}, {"http://b/x", "a", 404},
	} {
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", test.target, test.host)
		status, body := readResponse(t, conn)
		verify.That(t, status == test.status, "%s at %s: got %d %q, want %d", test.target, test.host, status, body, test.status)
	}
}

func TestAnswerAsJSON(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	got := p.raw("GET / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nConnection: close\r\n\r\n")
	for _, want := range []string{"HTTP/1.1 503 ", "\r\nX-Sluice-Reason: no_peers\r\n", "\r\nContent-Type: application/json\r\n",
		`{"status":503,"reason":"no_peers","message":"the service has no instances"}`} {
		verify.That(t, strings.Contains(got, want), "got %q, want it to have %q", got, want)
	}
}

// RFC 9110, section 7.6.2: the last recipient answers by itself.
func TestMaxForwardsZero(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	got := p.raw("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n")
	verify.That(t, strings.HasPrefix(got, "HTTP/1.1 200 ") && origin.got() == "", "got %q, the peer %q", got, origin.got())
}

// Most refusals have the status 400.
func TestOtherStatusesOfRefusals(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	for request, status := range map[string]string{
		"GET / HTTP/1.2": "505", "CONNECT a:80 HTTP/1.1": "405", "TRACE / HTTP/1.1": "405", "PRI * HTTP/2.0\r\n\r\nXX": "405", "GET / HTTP/1.1\r\nExpect: x": "417",
	} {
		answer := p.raw(request + "\r\nHost: a\r\n\r\n")
		verify.That(t, strings.HasPrefix(answer, "HTTP/1.1 "+status+" ") && strings.Contains(answer, "\r\nConnection: close\r\n"), "%q: got %q", request, answer)
	}
}
