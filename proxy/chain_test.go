package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/balancer"
	"sluice/route"
	"sluice/test/verify"
)

// chained returns a router of branches with these ways.
func chained(t testing.TB, branches []route.Branch, ways ...route.Route) *route.Router {
	t.Helper()
	return &route.Router{Chain: verify.Result(route.NewChain(branches)).Must(t), Ways: ways}
}

// echoing starts a peer that answers with its name and with what it has got, and returns a service
// with it.
func (p *testProxy) echoing(t testing.TB, name string) *route.Service {
	t.Helper()
	peer := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s ", name)
		echoRequest(w, r)
	})
	return p.newService(name, balancer.Options{NewTransport: p.NewTransport(transportOf(t))}, peer)
}

// A chain sees the request that the route sends: with its path and its fields, not with those of
// the client.
func TestChainSeesWhatTheRouteSends(t *testing.T) {
	t.Parallel()
	asks := asking(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Role", "guest") })
	asks.Copied = []string{"x-role"}
	p := startProxy(t, Options{})
	own := &route.Actions{
		Path:            pathEdits(t, route.PathOptions{Strip: "/shop"}),
		RequestHeaders:  headerEdits(t, map[string]string{"X-Env": "prod-$method"}, map[string]string{"X-Own": "1"}, "X-Internal"),
		ResponseHeaders: headerEdits(t, map[string]string{"X-Edited": "route"}, nil, "X-Peer"),
		ForwardAuth:     asks,
		Authorized:      headerEdits(t, nil, nil, "X-Role"),
	}
	inner := &route.Actions{
		RequestHeaders:  headerEdits(t, map[string]string{"X-Branch": "$path"}, nil, "X-Own"),
		ResponseHeaders: headerEdits(t, map[string]string{"X-Edited": "branch", "X-Peer": "branch"}, nil),
	}
	header := func(name, value string) route.Conditions {
		return route.Conditions{Headers: []route.Value{{Name: name, Text: value}}}
	}
	web := p.echoing(t, "web")
	router := chained(t, []route.Branch{
		{Route: route.Route{Path: "/", Conditions: header("x-internal", "1")}},
		{Route: route.Route{Path: "/", Conditions: header("x-role", "admin")}},
		{Route: route.Route{Path: "/guest", Conditions: header("x-role", "guest")}},
		{Route: route.Route{Path: "/env", Conditions: header("x-env", "prod-GET")}},
		{Route: route.Route{Path: "/admin"}, Rewrite: pathEdits(t, route.PathOptions{Strip: "/admin", Replacement: "/"})},
		{Route: route.Route{Path: "/query", Conditions: route.Conditions{Queries: []route.Value{{Name: "v", Text: "1"}}}}},
	},
		route.Route{Service: p.echoing(t, "internal"), Actions: own}, route.Route{Service: p.echoing(t, "role"), Actions: own},
		route.Route{Service: p.echoing(t, "guest"), Actions: own}, route.Route{Service: p.echoing(t, "env"), Actions: own},
		route.Route{Service: p.echoing(t, "admin"), Actions: own.With(inner)}, route.Route{Service: p.echoing(t, "query"), Actions: own},
	)
	plain := chained(t, []route.Branch{{Route: route.Route{Path: "/plain"}, Rewrite: pathEdits(t, route.PathOptions{Strip: "/plain", Replacement: "/new"})}},
		route.Route{Service: p.echoing(t, "plain")})
	p.setRoutes(
		route.Route{Path: "/shop", Service: web, Router: router, Actions: own},
		route.Route{Path: "/plain", Service: web, Router: plain}, // without actions
	)
	for _, front := range p.fronts() {
		for _, test := range []struct{ target, sent, edited string }{
			{"/shop/x", "web GET /x", "route"},
			{"/shop/env/x?q", "env GET /env/x?q", "route"},
			{"/shop/guest", "guest GET /guest", "route"},
			{"/shop/query?v=2&v=1", "query GET /query?v=2&v=1", "route"},
			{"/shop/admin/x?q", "admin GET /x?q", "route"},
			{"/shop/admin", "admin GET /", "route"},
			{"/shop/%61dmin?q", "the path begins with the prefix in another spelling", ""},
			{"/plain/x?q", "plain GET /new/x?q", ""},
		} {
			response, text := front.ask(t, "GET", test.target, "", "X-Internal: 1", "X-Role: admin", "X-Own: 2")
			verify.Contains(t, text, test.sent, "%s: %s", front.name, test.target)
			verify.Equal(t, response.Header.Get("X-Edited"), test.edited, "%s: %s: the edit of the response", front.name, test.target)
			if strings.HasPrefix(test.sent, "admin") {
				verify.That(t, strings.Contains(text, "X-Branch: /") && !strings.Contains(text, "X-Own"), "%s: edits of the branch: %s", front.name, text)
				verify.That(t, response.Header.Get("X-Peer") == "", "%s: X-Peer: %q", front.name, response.Header.Get("X-Peer"))
				verify.Contains(t, text, "X-Forwarded-Prefix: /shop\n", "%s", front.name)
			} else if test.edited != "" {
				verify.That(t, strings.Contains(text, "X-Own: 1") && !strings.Contains(text, "X-Internal"), "%s: edits of the route: %s", front.name, text)
			}
		}
	}
}

// The maintenance of a service holds for the branches and the targets that lead to it, and for all
// if it is that of the route.
func TestMaintenanceInAChain(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	web, branch, target := p.echoing(t, "web"), p.echoing(t, "branch"), p.echoing(t, "target")
	router := chained(t, []route.Branch{{Route: route.Route{Path: "/branch"}}, {Route: route.Route{Path: "/target"}}},
		route.Route{Service: branch}, route.Route{Weighted: &route.Weighted{Targets: []route.Target{{Share: 1, Route: &route.Route{Service: target}}}}})
	p.setRoutes(
		route.Route{Path: "/", Service: web, Router: router},
		route.Route{Path: "/shared", Weighted: &route.Weighted{Targets: []route.Target{{Share: 1, Route: &route.Route{Service: target}}}}},
	)
	fronts := p.fronts()
	for of, refused := range map[*route.Service]string{branch: "/branch", target: "/target /shared", web: "/ /branch /target"} {
		of.Pool.Maintenance.Store(&balancer.Maintenance{})
		for _, path := range []string{"/", "/branch", "/target", "/shared"} {
			response, text := fronts[0].ask(t, "GET", path, "")
			want := map[bool]string{true: "maintenance"}[slices.Contains(strings.Fields(refused), path)]
			verify.Equal(t, response.Header.Get("X-Sluice-Reason"), want, "maintenance of %s: %s: %s", of.Name, path, text)
		}
		of.Pool.Maintenance.Store(nil)
	}
}

// All that restricts the route holds whatever branch a request takes.
func TestRestrictionsHoldInAChain(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	web, other := p.echoing(t, "web"), p.echoing(t, "other")
	for own, status := range map[*route.Actions]string{
		{Access: access("192.0.2.0/24", "")}: "403", {ClientCertificate: true}: "403", {BodyLimit: 1}: "413",
	} {
		router := chained(t, []route.Branch{{Route: route.Route{Path: "/other"}}}, route.Route{Service: other, Actions: own})
		p.setRoutes(route.Route{Path: "/", Service: web, Router: router, Actions: own})
		for _, path := range []string{"/", "/other"} {
			p.expect("POST "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlong", status)
		}
	}
}

// A splitter keeps each client on one side, by the cookie that it sets.
func TestSplitterOfAChain(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	named := func(name string) route.Target {
		service := p.newService(name, balancer.Options{NewTransport: p.NewTransport(transportOf(t))},
			startOrigin(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"+name)).address())
		return route.Target{Route: &route.Route{Service: service}, Share: .5}
	}
	w := &route.Weighted{Targets: []route.Target{named("v1"), named("v2")}, Seed: "splitter web"}
	router := chained(t, []route.Branch{{Route: route.Route{Path: "/"}}}, route.Route{Weighted: w})
	p.setRoutes(route.Route{Path: "/", Service: p.echoing(t, "web"), Router: router})
	front := p.fronts()[0]
	clients := front.newClients(t)
	for side := range clients {
		front.expectClients(t, clients[side], side)
	}
}

func TestRedirectToHTTPS(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	for _, test := range []struct {
		port          int
		request, want string // want: the Location, or the reason of another answer
	}{
		{443, "GET /a?b=c HTTP/1.1\r\nHost: a.example\r\n", "https://a.example/a?b=c"},
		{443, "GET / HTTP/1.1\r\nHost: a.example:8080\r\n", "https://a.example/"},
		{8443, "POST /a HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 0\r\n", "https://[::1]:8443/a"},
		{443, "GET /a HTTP/1.1\r\nHost: [::1]\r\n", "https://[::1]/a"},
		{443, "GET http://b.example?x HTTP/1.1\r\nHost: b.example\r\n", "https://b.example/?x"},
		{443, "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n", "https://a.example/"},
		{443, "GET // HTTP/1.1\r\nHost: a.example\r\n", "https://a.example//"},
		{443, "GET /a HTTP/1.0\r\n", "no_host"},
	} {
		p.address = p.serveWith(ListenerOptions{Name: "plain", HTTPSPort: test.port})
		if strings.HasPrefix(test.want, "https") {
			p.expect(test.request+"Connection: close\r\n\r\n", "308", "\r\nLocation: "+test.want+"\r\n")
		} else {
			expectReason(t, p.raw(test.request+"Connection: close\r\n\r\n"), "400", test.want)
		}
	}
	verify.Equal(t, origin.got(), "", "the peer")
}

// A target without a path, which the peer gets as / or *, is the root of its host also in URLs that
// a route makes of it.
func TestURLsOfTargetsWithoutAPath(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, answersOK(t))
	for _, to := range []*route.Redirect{redirect(t, "https://new.example$path", 302), redirectByPattern(t, "^http://[^/]*(/.*)", "https://new.example$1")} {
		p.setRoutes(route.Route{Path: "/", Service: p.service, Actions: &route.Actions{Redirect: to}})
		for target, want := range map[string]string{"OPTIONS *": "/", "GET http://a.example": "/", "GET http://a.example?q=1": "/?q=1", "GET /x": "/x"} {
			p.expect(target+" HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", "302", "\r\nLocation: https://new.example"+want+"\r\n")
		}
	}
	p.setRoutes(route.Route{Path: "/", Service: p.service, Actions: &route.Actions{Redirect: redirect(t, "http://a.example$path", 308)}})
	for _, target := range []string{"OPTIONS *", "GET http://a.example", "GET http://a.example?q=1", "GET /x"} { // redirects to themselves
		p.expect(target+" HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", "200")
	}
}

// A trusted proxy that terminates TLS is not redirected, since its clients would come
// back for ever. Others cannot avoid the redirect.
func TestRequestsOverTLSToATrustedProxyAreNotRedirected(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, answersOK(t))
	p.address = p.serveWith(ListenerOptions{Name: "plain", HTTPSPort: 443})
	for _, test := range []struct {
		trusted, protocol string
		status            string
	}{
		{"127.0.0.0/8", "X-Forwarded-Proto: https\r\n", "200"},
		{"127.0.0.0/8", "X-Forwarded-Proto: HTTPS\r\n", "200"},
		{"127.0.0.0/8", "X-Forwarded-Proto: https, http\r\n", "200"},
		{"127.0.0.0/8", "X-Forwarded-Proto: http\r\n", "308"},
		{"127.0.0.0/8", "X-Forwarded-Proto: http, https\r\n", "308"},
		{"127.0.0.0/8", "X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\n", "308"},
		{"127.0.0.0/8", "X-Forwarded-Proto: https2\r\n", "308"},
		{"127.0.0.0/8", "X-Forwarded-Proto:\r\n", "308"},
		{"127.0.0.0/8", "", "308"},
		{"192.0.2.0/24", "X-Forwarded-Proto: https\r\n", "308"},
	} {
		p.change(func(o *Options) { o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(test.trusted)} })
		p.expect("GET / HTTP/1.1\r\nHost: a.example\r\n"+test.protocol+"Connection: close\r\n\r\n", test.status)
	}
}

// Every final response has the configured field once, instead of the peer's.
func TestStrictTransportSecurity(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startOrigin(t, answering("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"+
		"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 2\r\n\r\nok")).address())
	const line = "Strict-Transport-Security: max-age=31536000\r\n"
	answer := p.raw(closingRequest)
	verify.That(t, strings.Count(answer, "Strict-Transport-Security: max-age=1\r\n") == 1, "without the setting: got %q", answer)
	p.address = p.serveWith(ListenerOptions{Name: "hsts", StrictTransportSecurity: "max-age=31536000"})
	answer = p.raw(closingRequest)
	_, final, _ := strings.Cut(answer, "\r\n\r\n")
	verify.That(t, strings.Count(answer, "Strict-") == 1 && strings.Contains(final, line), "with the setting: got %q", answer)
	p.setPeers()
	answer = p.raw(closingRequest)
	verify.That(t, strings.HasPrefix(answer, "HTTP/1.1 503 ") && strings.Count(answer, line) == 1, "an own answer: got %q", answer)
}

// A handler gets the target and the fields that a peer would get, and the client its whole answer.
func TestHandlerAnswers(t *testing.T) {
	p := startProxyTo(t, false, Options{}, echoRequest)
	long := strings.Repeat("0123456789", 100<<10)
	path := route.PathOptions{Strip: "/sluice"}
	p.setRoutes(route.Route{Path: "/sluice", PathMatch: route.PathPrefix, Actions: &route.Actions{
		Path: verify.Result(route.NewPathEdits(path)).Must(t),
		Handler: route.NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if r.URL.Path == "/long" {
				fmt.Fprint(w, long)
				return
			}
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprint(w, r.Method, " ", r.URL, " ", r.Host, " ", r.RemoteAddr, " ", r.Header.Get("X-A"), r.Header.Get("If-None-Match"), " ", len(body), err)
		})),
	}})
	p.answered("GET", "/sluice/long", 200, "admin_api", long)
	p.answered("HEAD", "/sluice/long", 200, "admin_api", "")
	p.answered("POST", "/sluice/x?y=%20z", 418, "admin_api", "POST /x?y=%20z shop.example 127.0.0.1 b 0 <nil>", "X-A: b", "If-None-Match: c")
	p.expectNothingCounted()
}

// A client whose answers take long, or who does not read them, leaves places to others.
func TestAClientLeavesPlacesOfAHandler(t *testing.T) {
	p := startProxyTo(t, false, Options{}, echoRequest)
	var held atomic.Int64
	release := make(chan struct{})
	p.setActions(&route.Actions{Handler: route.NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			held.Add(1)
			<-release
		}
	}))})
	const request = "GET /held HTTP/1.1\r\nHost: a\r\n\r\n"
	for range 20 {
		defer p.sendFrom("127.0.0.2", []byte(request)).Close()
	}
	eventually(t, "the share of a client is used up", func() bool { return held.Load() == 4 })
	verify.Succeeds(t, get200(p.dialFrom("127.0.0.1")))
	verify.Equal(t, held.Load(), 4, "answers that the other client waits for")
	close(release)
	eventually(t, "the client has places again", func() bool { return get200(p.dialFrom("127.0.0.2")) == nil })
}
