package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"regexp"
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

// chainModel makes routes and chains of a small vocabulary, so that their edits and conditions
// meet.
type chainModel struct{ *rand.Rand }

// modelEdits are edits of one list of fields, in plain words.
type modelEdits struct {
	set, add map[string]string
	remove   []string
}

// modelBranch is a branch, in plain words.
type modelBranch struct {
	path, match   string
	ignoreCase    bool
	replacement   string
	field, value  string // a field that must have the value; empty: none
	absent        bool   // it must not have it
	edits, answer modelEdits
	services      []string // a splitter, if there are two
}

func (m chainModel) one(of ...string) string { return of[m.IntN(len(of))] }

func (m chainModel) edits(names ...string) (e modelEdits) {
	e.set, e.add = make(map[string]string), make(map[string]string)
	for _, name := range names {
		switch m.IntN(6) {
		case 0:
			e.set[name] = m.one("1", "2")
		case 1:
			e.add[name] = m.one("1", "2")
		case 2:
			e.remove = append(e.remove, name)
		}
	}
	return e
}

func (m chainModel) branch() modelBranch {
	b := modelBranch{match: m.one("prefix", "string_prefix", "exact"), path: m.one("/", "/a", "/a/b", "/A", "/p/a", "/a/"), services: []string{m.one("a", "b", "c")}}
	b.ignoreCase = m.IntN(3) == 0
	if m.IntN(2) == 0 {
		b.replacement = m.one("/", "/n", "/n/")
	}
	if m.IntN(2) == 0 {
		b.field, b.value, b.absent = m.one("X-A", "X-B"), m.one("1", "2"), m.IntN(3) == 0
	}
	if m.IntN(3) == 0 {
		b.services = []string{"a", "b"}
	}
	b.edits, b.answer = m.edits("X-A", "X-B"), m.edits("X-R")
	return b
}

func (e modelEdits) apply(lines []string) (edited []string) {
	for _, line := range lines {
		name, _, _ := strings.Cut(line, ": ")
		if _, set := e.set[name]; !set && !slices.Contains(e.remove, name) {
			edited = append(edited, line)
		}
	}
	for _, values := range []map[string]string{e.set, e.add} {
		for name, value := range values {
			edited = append(edited, name+": "+value)
		}
	}
	return edited
}

// matches reports whether a request with that path and these fields takes b.
func (b *modelBranch) matches(path string, lines []string) bool {
	text, path := b.path, strings.TrimSuffix(path, "/")
	if b.ignoreCase {
		text, path = strings.ToLower(text), strings.ToLower(path)
	}
	whole := strings.TrimSuffix(text, "/")
	fits := path == whole
	if b.match != "exact" {
		fits = fits || strings.HasPrefix(path, whole+"/")
	}
	if b.match == "string_prefix" && whole == text {
		fits = fits || strings.HasPrefix(path, whole)
	}
	return fits && (b.field == "" || slices.Contains(lines, b.field+": "+b.value) != b.absent)
}

// rewrite returns the path for a peer.
func (b *modelBranch) rewrite(path string) string {
	if b.replacement == "" {
		return path
	}
	rest := path[len(strings.TrimSuffix(b.path, "/")):]
	if strings.HasPrefix(rest, "/") {
		return strings.TrimSuffix(b.replacement, "/") + rest
	}
	return b.replacement + rest
}

// Whatever a route and a chain do, a request reaches the peer of the branch that it takes after the
// route's edits, with the edits of both, and so does its answer the client.
func TestRoutesAndChainsMeet(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	services := make(map[string]*route.Service)
	for _, name := range []string{"web", "a", "b", "c"} {
		services[name] = p.echoing(t, name)
	}
	front := p.fronts()[0]
	compiled := func(e modelEdits) route.HeaderEdits { return headerEdits(t, e.set, e.add, e.remove...) }
	slash := regexp.MustCompile(`^/r/(.*)$`)
	taken, seeds := 0, uint64(200)
	if testing.Short() {
		seeds = 40 // one request at a time
	}
	for seed := range seeds {
		m := chainModel{rand.New(rand.NewPCG(seed, 4))}
		own := &route.Actions{}
		var edits, answer modelEdits
		strip, add := m.one("", "/s"), m.one("", "/p")
		options := route.PathOptions{Strip: strip, Add: add}
		if m.IntN(3) == 0 {
			options.Rewrite, options.To = slash, "/$1"
		}
		if m.IntN(4) > 0 {
			own.Path = pathEdits(t, options)
			edits, answer = m.edits("X-A", "X-B"), m.edits("X-R")
			own.RequestHeaders, own.ResponseHeaders = compiled(edits), compiled(answer)
		} else {
			own, strip, add, options.Rewrite = nil, "", "", nil
		}
		model := make([]modelBranch, 1+m.IntN(4))
		var branches []route.Branch
		router := &route.Router{}
		for i := range model {
			model[i] = m.branch()
			b := &model[i]
			r := route.Route{Path: b.path, PathMatch: route.PathMatch(b.match)}
			if b.field != "" {
				values := []route.Value{{Name: b.field, Text: b.value}}
				if r.Conditions.Headers = values; b.absent {
					r.Conditions = route.Conditions{Not: &route.Conditions{Headers: values}}
				}
			}
			branch := route.Branch{Route: r, IgnoreCase: b.ignoreCase}
			if b.replacement != "" {
				branch.Rewrite = pathEdits(t, route.PathOptions{Strip: b.path, StripString: b.match == "string_prefix", IgnoreCase: b.ignoreCase, Replacement: b.replacement})
			}
			branches = append(branches, branch)
			actions := own.With(&route.Actions{RequestHeaders: compiled(b.edits), ResponseHeaders: compiled(b.answer)})
			way := route.Route{Service: services[b.services[0]], Actions: actions}
			if len(b.services) > 1 {
				w := &route.Weighted{Key: route.SplitKey{Source: route.SplitHeader, Header: "x-user"}, Seed: "splitter"}
				for _, name := range b.services {
					w.Targets = append(w.Targets, route.Target{Route: &route.Route{Service: services[name], Actions: actions}, Share: .5})
				}
				way = route.Route{Weighted: w}
			}
			router.Ways = append(router.Ways, way)
		}
		router.Chain = verify.Result(route.NewChain(branches)).Must(t)
		p.setRoutes(route.Route{Path: "/", Service: services["web"], Router: router, Actions: own})
		for range 10 {
			path := m.one("", "/s", "/r") + m.one("/", "/a", "/a/b", "/A/x", "/ab", "/a/", "/x")
			var lines []string
			for range m.IntN(4) {
				lines = append(lines, m.one("X-A: 1", "X-A: 2", "X-B: 1", "X-B: 2"))
			}
			user := fmt.Sprint(m.IntN(100))

			wantPath := path
			if strip != "" && (path == strip || strings.HasPrefix(path, strip+"/")) {
				wantPath = "/" + strings.TrimPrefix(strings.TrimPrefix(path, strip), "/")
			}
			if wantPath = add + wantPath; options.Rewrite != nil {
				wantPath = slash.ReplaceAllString(wantPath, "/$1")
			}
			wantLines, wantAnswer, service := edits.apply(lines), []string(nil), "web"
			if i := slices.IndexFunc(model, func(b modelBranch) bool { return b.matches(wantPath, wantLines) }); i >= 0 {
				taken++
				b := &model[i]
				wantPath, wantLines, wantAnswer, service = b.rewrite(wantPath), b.edits.apply(wantLines), b.answer.apply(nil), b.services[0]
				if len(b.services) > 1 {
					service = router.Ways[i].Weighted.Choose([]byte(user)).Route.Service.Name
				}
			}
			wantAnswer = answer.apply(wantAnswer)

			response, text := front.ask(t, "GET", path+"?q", "", append([]string{"X-User: " + user}, lines...)...)
			got := strings.Split(text, "\n")
			gotLines := slices.DeleteFunc(got[1:], func(line string) bool { return !strings.HasPrefix(line, "X-A: ") && !strings.HasPrefix(line, "X-B: ") })
			slices.Sort(wantLines)
			verify.Require(t, got[0] == service+" GET "+wantPath+"?q" && slices.Equal(gotLines, wantLines), "seed %d: GET %s %q by %+v and %+v: got %s %q, want %s %s %q",
				seed, path, lines, options, model, got[0], gotLines, service, wantPath, wantLines)
			var gotAnswer []string
			for _, value := range response.Header["X-R"] {
				gotAnswer = append(gotAnswer, "X-R: "+value)
			}
			verify.Require(t, slices.Equal(gotAnswer, wantAnswer), "seed %d: GET %s by %+v: the answer has %q, want %q", seed, path, model, gotAnswer, wantAnswer)
		}
	}
	verify.That(t, taken > int(2*seeds), "only %d of %d requests take a branch", taken, 10*seeds)
}
