package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/route"
	"sluice/test/verify"
)

// Of a request only what conditions of routes read is kept, and no credentials. A client that sends
// many leaves the other routes their room.
func TestRecentRequests(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startOrigin(t, answering("HTTP/1.1 204 No Content\r\n\r\n")).address())
	conditions := route.Conditions{
		Headers: []route.Value{{Name: "X-Env", Kind: route.ValuePresent}, {Name: "Authorization", Kind: route.ValuePresent}},
		Queries: []route.Value{{Name: "v", Kind: route.ValuePresent}}, Cookies: []route.Value{{Name: "beta", Kind: route.ValuePresent}},
	}
	p.setRoutes(
		route.Route{Path: "/a", Service: p.service, Conditions: conditions}, route.Route{Path: "/a", Service: p.service},
		route.Route{Path: "/b", Service: p.service},
	)
	send := func(target string, fields ...string) {
		t.Helper()
		p.raw("GET " + target + " HTTP/1.1\r\nHost: h.example\r\n" + strings.Join(append(fields, "Connection: close"), "\r\n") + "\r\n\r\n")
	}
	send("/a/x?token=secret&v=1&%76=2", "X-Env: canary", "X-Key: secret", "Authorization: Bearer secret", "Cookie: session=secret; beta=1")
	for i := range 50 {
		send(fmt.Sprint("/a/", i))
	}
	send("/b/x")
	send("/nothing")
	var heads []string
	for _, r := range p.Recent(time.Time{}) {
		heads = append(heads, strings.TrimSuffix(string(r.Head), "\r\n\r\n"))
		verify.That(t, r.Client.IsLoopback() && time.Since(r.Time) < time.Hour, "%+v", r)
	}
	all := "\n" + strings.ReplaceAll(strings.Join(heads, "\n"), "\r\n", "|") + "\n"
	const host = " HTTP/1.1|Host: h.example"
	for _, want := range []string{"/a/x?v=1&%76=2" + host + "|X-Env: canary|Cookie: beta=1", "/a/0" + host, "/b/x" + host, "/nothing" + host} {
		verify.Contains(t, all, "\nGET "+want+"\n", "the heads")
	}
	verify.That(t, !strings.Contains(all, "secret"), "a secret is kept: %s", all)
	// One of each route, and another one if five seconds have passed.
	verify.That(t, len(heads) < 40, "%d requests are kept", len(heads))
}
