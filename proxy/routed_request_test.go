package proxy

import (
	"fmt"
	"net/netip"
	"testing"

	"sluice/route"
)

// startConditional is startProxy with a route for each of the conditions, on the path
// /NUMBER, and no other one.
func startConditional(t *testing.T, o Options, conditions ...route.Conditions) *testProxy {
	t.Helper()
	p := startProxy(t, o, answersOK(t))
	var routes []route.Route
	for i, c := range conditions {
		routes = append(routes, route.Route{Path: fmt.Sprintf("/%d", i), Conditions: c, Service: p.service})
	}
	p.setRoutes(routes...)
	return p
}

func (p *testProxy) wantRouted(want bool, request string) {
	p.t.Helper()
	p.expect(request+"Host: a\r\nConnection: close\r\n\r\n", map[bool]string{true: "200", false: "404"}[want])
}

func TestConditionsOfRequests(t *testing.T) {
	t.Parallel()
	p := startConditional(t, Options{},
		route.Conditions{Methods: []string{"GET", "PATCH"}},
		route.Conditions{Headers: []route.Value{{Name: "X-A", Text: "1"}}},
		route.Conditions{Queries: []route.Value{{Name: "v", Text: "a b"}}},
		route.Conditions{Cookies: []route.Value{{Name: "c", Kind: route.ValueMatches, Text: "^[0-9]+$"}}},
		route.Conditions{Scheme: "http", Clients: loopback},
		route.Conditions{Scheme: "https"},
		route.Conditions{Headers: []route.Value{{Name: "X-Forwarded-For", Kind: route.ValuePresent}}},
		route.Conditions{Headers: []route.Value{{Name: "x_a", Kind: route.ValuePresent}}},
		route.Conditions{Headers: []route.Value{{Name: "X-Sluice-Mirror", Kind: route.ValuePresent}}},
	)
	for _, test := range []struct {
		want    bool
		request string
	}{
		{true, "GET /0 HTTP/1.1\r\n"},
		{false, "DELETE /0 HTTP/1.1\r\n"},
		{true, "PATCH /0 HTTP/1.1\r\nContent-Length: 0\r\n"},
		{true, "GET /1 HTTP/1.1\r\nx-a: 2\r\nX-A:  1 \r\n"},
		{false, "GET /1 HTTP/1.1\r\nX-A: 2\r\nX-AB: 1\r\n"},
		{true, "GET /2?v=x&v=a%20b HTTP/1.1\r\n"},
		{true, "GET http://a/2?v=a+b HTTP/1.1\r\n"},
		{false, "GET /2?vv=a+b HTTP/1.1\r\n"},
		{true, "GET /3 HTTP/1.1\r\nCookie: a=1\r\nCookie: b=2; c=3\r\n"},
		{false, "GET /3 HTTP/1.1\r\nCookie: c=x; C=1\r\n"},
		{true, "GET /4 HTTP/1.1\r\n"},
		{false, "GET /5 HTTP/1.1\r\nX-Forwarded-Proto: https\r\n"},
		{false, "GET /6 HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1\r\n"},
		{false, "GET /7 HTTP/1.1\r\nx_a: 1\r\n"},
		{false, "GET /8 HTTP/1.1\r\nX-Sluice-Mirror: star\r\n"}, // a forged mark
	} {
		p.wantRouted(test.want, test.request)
	}
}

func TestConditionsBehindProxies(t *testing.T) {
	t.Parallel()
	p := startConditional(t, Options{TrustedProxies: loopback, Switches: Switches{KeepUnderscores: true}},
		route.Conditions{Scheme: "https"},
		route.Conditions{Clients: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		route.Conditions{Headers: []route.Value{{Name: "X-Forwarded-For", Kind: route.ValuePresent}, {Name: "x_a", Kind: route.ValuePresent}}},
		route.Conditions{Clients: loopback},
	)
	for _, test := range []struct {
		want    bool
		request string
	}{
		{true, "GET /0 HTTP/1.1\r\nX-Forwarded-Proto: https\r\n"},
		{false, "GET /0 HTTP/1.1\r\nX-Forwarded-Proto: http\r\n"},
		{false, "GET /0 HTTP/1.1\r\n"},
		{true, "GET /1 HTTP/1.1\r\nX-Forwarded-For: 198.51.100.1, 192.0.2.1\r\n"},
		{true, "GET /1 HTTP/1.1\r\nX-Forwarded-For: ::ffff:192.0.2.1\r\n"},
		{false, "GET /1 HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1, 198.51.100.1\r\n"},
		{false, "GET /1 HTTP/1.1\r\n"},
		{true, "GET /2 HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1\r\nx_a: 1\r\n"},
		{true, "GET /3 HTTP/1.1\r\n"},
		{false, "GET /3 HTTP/1.1\r\nX-Forwarded-For: nonsense\r\n"}, // nobody is known
		{true, "GET /1 HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1:1234\r\n"},
	} {
		p.wantRouted(test.want, test.request)
	}
}

func TestRouteOfOneListener(t *testing.T) {
	t.Parallel()
	p := startConditional(t, Options{})
	for _, test := range []struct {
		listener string
		want     bool
	}{{"other", false}, {"test", true}} {
		p.setRoutes(route.Route{Path: "/", Listeners: []string{test.listener}, Service: p.service})
		p.wantRouted(test.want, "GET / HTTP/1.1\r\n")
	}
}

// Only a trusted proxy may say what the client uses.
func TestOverTLSConditions(t *testing.T) {
	t.Parallel()
	p := startConditional(t, Options{}, route.Conditions{Scheme: "https"}, route.Conditions{Scheme: "http"})
	p.wantRouted(true, "GET /0 HTTP/1.1\r\n")
	p.wantRouted(true, "GET /0 HTTP/1.1\r\nX-Forwarded-Proto: http\r\n")
	p.wantRouted(false, "GET /1 HTTP/1.1\r\nX-Forwarded-Proto: http\r\n")
}
