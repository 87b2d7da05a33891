package proxy

import (
	"bufio"
	"cmp"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/route"
	"sluice/route/auth"
	"sluice/route/ratelimit"
	"sluice/test/verify"
)

func headerEdits(t testing.TB, set, add map[string]string, remove ...string) route.HeaderEdits {
	t.Helper()
	return verify.Result(route.NewHeaderEdits(set, add, remove)).Must(t)
}

func pathEdits(t testing.TB, o route.PathOptions) route.PathEdits {
	t.Helper()
	return verify.Result(route.NewPathEdits(o)).Must(t)
}

func redirectByPattern(t testing.TB, expression, to string) *route.Redirect {
	t.Helper()
	return verify.Result(route.NewRegexpRedirect(regexp.MustCompile(expression), to, route.RedirectCodes{Code: 302}, false)).Must(t)
}

func redirect(t testing.TB, to string, code int) *route.Redirect {
	t.Helper()
	return redirectFor(t, to, route.RedirectCodes{Code: code})
}

func redirectFor(t testing.TB, to string, codes route.RedirectCodes) *route.Redirect {
	t.Helper()
	return verify.Result(route.NewRedirect(to, codes)).Must(t)
}

// annsPassword lets in ann, whose password is "secret".
func annsPassword(t testing.TB) *route.BasicAuth {
	t.Helper()
	file := filepath.Join(t.TempDir(), "users")
	verify.NoError(t, os.WriteFile(file, []byte("ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n"), 0o600))
	return &route.BasicAuth{Users: verify.Result(auth.OpenUsers(file)).Must(t), Realm: "the shop"}
}

// access returns one for networks; "": none.
func access(allow, deny string) *route.Access {
	parse := func(s string) (all []netip.Prefix) {
		for word := range strings.FieldsSeq(s) {
			all = append(all, netip.MustParsePrefix(word))
		}
		return all
	}
	return route.NewAccess(parse(allow), parse(deny))
}

// exhausted returns l with an empty bucket of the key, and 100 tokens for others, for a day.
func exhausted(l route.RateLimit, key string) *route.RateLimit {
	const tokens = 100
	l.Limiter = ratelimit.New(1, 24*time.Hour, tokens)
	for l.Take([]byte(key), time.Now()) == 0 {
	}
	return &l
}

// An actionCase is a request through a route with actions.
type actionCase struct {
	name           string
	actions        route.Actions
	method, target string // GET, /
	body           string
	fields         []string
	status         int      // 200, or 101 for WebSocket
	reason         string   // of an answer of sluice's own
	want, absent   []string // lines of what the peer got
	answer         []string // fields of the response; one that ends with a colon is not there
}

// actionCases show what each action does.
func actionCases(t *testing.T) []actionCase {
	type pairs = map[string]string
	headers := route.Actions{
		RequestHeaders: headerEdits(t, pairs{"X-Set": "$method $scheme://$host$path?$query $client_address", "X-Forwarded-Proto": "gopher"},
			pairs{"X-Add": "more"}, "Cookie", "X-Gone"),
		ResponseHeaders: headerEdits(t, pairs{"X-Peer": "public", "X-New": "$$"}, pairs{"X-Twice": "3"}, "Content-Type"),
	}
	password := route.Actions{
		BasicAuth:      annsPassword(t),
		RequestHeaders: headerEdits(t, pairs{"X-User": "$user"}, nil, "Authorization"),
	}
	right := base64.StdEncoding.EncodeToString([]byte("ann:secret"))
	return []actionCase{
		{name: "no edits", want: []string{"GET /", "Host: shop.example"}, answer: []string{"X-Peer: secret"}},
		{name: "fields", actions: headers, target: "/p/%41?q=%42&r",
			fields: []string{"X-Set: forged", "x-set: again", "X-Add: one", "X-Gone: 1", "Cookie: a=b", "X-Kept: $host"},
			want:   []string{"GET /p/%41?q=%42&r", "X-Set: GET SCHEME://shop.example/p/%41?q=%42&r 127.0.0.1", "X-Add: more", "X-Add: one", "X-Kept: $host", "X-Forwarded-Proto: gopher"},
			absent: []string{"X-Set: forged", "X-Set: again", "Cookie: a=b", "X-Gone: 1", "X-Forwarded-Proto: SCHEME"},
			answer: []string{"X-Peer: public", "X-New: $", "X-Twice: 1, 2, 3", "Content-Type:"}},
		{name: "fields, POST", actions: headers, method: "POST", body: "body", want: []string{"POST /", "Content-Length: 4"}, answer: []string{"X-Peer: public"}},
		{name: "fields, HEAD", actions: headers, method: "HEAD", answer: []string{"X-Peer: public", "X-New: $"}},
		{name: "strip", actions: route.Actions{Path: pathEdits(t, route.PathOptions{Strip: "/api/"})}, target: "/api/x%2fy/?q=/api",
			fields: []string{"X-Forwarded-Prefix: /forged"}, want: []string{"GET /x%2fy/?q=/api", "X-Forwarded-Prefix: /api"}, absent: []string{"X-Forwarded-Prefix: /forged"}},
		{name: "strip nothing", actions: route.Actions{Path: pathEdits(t, route.PathOptions{Strip: "/api"})}, target: "/apix",
			fields: []string{"X-Forwarded-Prefix: /other"}, want: []string{"GET /apix"}, absent: []string{"X-Forwarded-Prefix: /other"}},
		{name: "strip, encoded", actions: route.Actions{Path: pathEdits(t, route.PathOptions{Strip: "/api"})}, target: "/%61pi/x", status: 400, reason: "unsafe_path"},
		{name: "rewrite", actions: route.Actions{Path: pathEdits(t, route.PathOptions{Rewrite: regexp.MustCompile("^/a/([^/]*)/(.*)$"), To: "/$2/${1}x?from=a"})},
			target: "/a/one/two%2f?q=1", want: []string{"GET /two%2f/onex?from=a&q=1"}},
		{name: "rewrite, dot segments", actions: route.Actions{Path: pathEdits(t, route.PathOptions{Rewrite: regexp.MustCompile("^/a/(.*)$"), To: "/b/.$1"})}, target: "/a/.", status: 400, reason: "unsafe_path"},
		{name: "rewrite, too long", actions: route.Actions{Path: pathEdits(t, route.PathOptions{Rewrite: regexp.MustCompile("^/(.*)$"), To: "/$1$1$1"})}, target: "/" + strings.Repeat("x", 6000), status: 414, reason: "target_too_long"},
		{name: "host", actions: route.Actions{Host: "app.internal:81"}, want: []string{"Host: app.internal:81", "X-Forwarded-Host: shop.example"}},
		{name: "host of the peer", actions: route.Actions{HostOfPeer: true}, want: []string{"Host: PEER", "X-Forwarded-Host: shop.example"}},
		{name: "redirect", actions: route.Actions{Redirect: redirect(t, "https://www.example/new$path", 301)}, target: "/a%20b?q=1", status: 301, reason: "redirect",
			answer: []string{"Location: https://www.example/new/a%20b?q=1"}},
		{name: "redirect, stripped", actions: route.Actions{Redirect: redirect(t, "/$path", 307), Path: pathEdits(t, route.PathOptions{Strip: "/a"})}, target: "/a/x", status: 307, reason: "redirect",
			answer: []string{"Location: /x"}},
		{name: "redirect by pattern", actions: route.Actions{Redirect: redirectByPattern(t, `^https?://([^/]*)/a/old/(.*)$`, "https://$1/$2"), Path: pathEdits(t, route.PathOptions{Strip: "/a"})},
			target: "/a/old/x?q=1", status: 302, reason: "redirect", answer: []string{"Location: https://shop.example/x?q=1"}},
		{name: "no redirect by pattern", actions: route.Actions{Redirect: redirectByPattern(t, "/old/", "/new/")}, target: "/x?q=1", want: []string{"GET /x?q=1"}},
		{name: "redirect, GET", actions: route.Actions{Redirect: redirectFor(t, "/new", route.RedirectCodes{Code: 308, Get: 301})}, target: "/", status: 301, reason: "redirect",
			answer: []string{"Location: /new"}},
		{name: "redirect, not GET", actions: route.Actions{Redirect: redirectFor(t, "/new", route.RedirectCodes{Code: 308, Get: 301})}, target: "/", method: "POST", body: "x", status: 308, reason: "redirect",
			answer: []string{"Location: /new"}},
		{name: "redirect to itself", actions: route.Actions{Redirect: redirect(t, "$scheme://$authority$path", 308)}, target: "/x?q=1", want: []string{"GET /x?q=1"}},
		{name: "not allowed", actions: route.Actions{Access: access("10.0.0.0/8", "")}, fields: []string{"X-Forwarded-For: 10.0.0.1"}, status: 403, reason: "client_denied"},
		{name: "denied", actions: route.Actions{Access: access("", "::ffff:127.0.0.0/104")}, method: "POST", body: strings.Repeat("x", 100_000), status: 403, reason: "client_denied"},
		{name: "limited", actions: route.Actions{RateLimit: exhausted(route.RateLimit{PerRoute: true}, "")}, status: 429, reason: "rate_limited"},
		{name: "limited address", actions: route.Actions{RateLimit: exhausted(route.RateLimit{}, "\x7f\x00\x00\x01")}, status: 429, reason: "rate_limited"},
		{name: "limited key", actions: route.Actions{RateLimit: exhausted(route.RateLimit{Key: route.HashKey{Source: route.HashHeader, Name: "x-key"}}, "a")},
			fields: []string{"X-Key: a"}, status: 429, reason: "rate_limited"},
		{name: "no password", actions: password, status: 401, reason: "unauthorized", answer: []string{`Www-Authenticate: Basic realm="the shop", charset="UTF-8"`}},
		{name: "wrong password", actions: password, fields: []string{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("ann:wrong"))}, status: 401, reason: "unauthorized"},
		{name: "password", actions: password, method: "POST", body: "body", fields: []string{"Authorization: basic " + right}, want: []string{"POST /", "X-User: ann"}, absent: []string{"Authorization: basic " + right}},
		{name: "two passwords", actions: password, fields: []string{"Authorization: Basic " + right, "Authorization: Basic " + right}, status: 401, reason: "unauthorized"},
		{name: "another scheme", actions: password, fields: []string{"Authorization: Bearer " + right}, status: 401, reason: "unauthorized"},
		{name: "no base64", actions: password, fields: []string{"Authorization: Basic !" + right}, status: 401, reason: "unauthorized"},
		{name: "body too long", actions: route.Actions{BodyLimit: 4}, method: "POST", body: "body!", status: 413, reason: "body_too_long"},
		{name: "large body too long", actions: route.Actions{BodyLimit: 4}, method: "POST", body: strings.Repeat("x", 100_000), status: 413, reason: "body_too_long"},
	}
}

// check checks the response, whose status is usually that one, and what the peer got.
func (c *actionCase) check(t *testing.T, front *testFront, peer string, response *http.Response, got string, status int) {
	t.Helper()
	what := front.name
	verify.That(t, response.StatusCode == cmp.Or(c.status, status) && response.Header.Get("X-Sluice-Reason") == c.reason,
		"%s: got %d %q, want %d %q", what, response.StatusCode, response.Header.Get("X-Sluice-Reason"), cmp.Or(c.status, status), c.reason)
	if seconds, _ := strconv.Atoi(response.Header.Get("Retry-After")); c.status == 429 && (seconds < 1 || seconds > 86400) {
		t.Errorf("%s: Retry-After is %q", what, response.Header.Get("Retry-After"))
	}
	scheme, _, _ := strings.Cut(front.url, ":")
	place, lines := strings.NewReplacer("SCHEME", scheme, "PEER", peer), strings.Split(got, "\n")
	for _, line := range c.want {
		line = place.Replace(line)
		verify.That(t, slices.Contains(lines, line), "%s: the peer did not get %q:\n%s", what, line, got)
	}
	for _, line := range c.absent {
		line = place.Replace(line)
		verify.That(t, !slices.Contains(lines, line), "%s: the peer got %q:\n%s", what, line, got)
	}
	for _, field := range c.answer {
		name, value, _ := strings.Cut(field, ":")
		got := strings.Join(response.Header.Values(name), ", ")
		verify.That(t, got == strings.TrimSpace(value), "%s: the response has %s: %q, want %q", what, name, got, value)
	}
}

// Actions do the same whatever the protocols of client and peer are.
func TestActions(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		p := startProxyTo(t, http2, Options{}, echoRequest)
		peer, fronts := p.pool.Snapshot().All[0].Address(), p.fronts()
		for _, test := range actionCases(t) {
			t.Run(fmt.Sprintf("%s, HTTP/2 to peers %v", test.name, http2), func(t *testing.T) {
				p.setActions(&test.actions)
				for _, front := range fronts {
					for range 2 { // the connection stays in order
						response, got := front.ask(t, cmp.Or(test.method, "GET"), cmp.Or(test.target, "/"), test.body, test.fields...)
						test.check(t, &front, peer, response, got, 200)
					}
				}
			})
		}
	}
}

// A route that only redirects needs no service.
func TestRedirectWithoutService(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	p.setRoutes(route.Route{Path: "/", Actions: &route.Actions{Redirect: redirect(t, "$scheme://$authority/to", 303)}})
	for _, front := range p.fronts() {
		for target, want := range map[string]string{"/x": "303 redirect", "/to": "508 redirect_loop"} {
			response, _ := front.ask(t, "GET", target, "")
			verify.Equal(t, fmt.Sprint(response.StatusCode, " ", response.Header.Get("X-Sluice-Reason")), want, "%s, %s", front.name, target)
		}
	}
}

// A request for which a bounded expression would take too long is denied, by the route that has it.
func TestARequestOverTheBudgetOfExpressionsIsDenied(t *testing.T) {
	t.Parallel()
	p := startProxyTo(t, false, Options{}, echoRequest)
	const slow = "[ab]*[ab]{1,900}z"
	p.setRoutes(
		route.Route{Path: "^/slow/" + slow, PathMatch: route.PathRegexp, Bounded: true, Service: p.service},
		route.Route{Path: "/rewrite", Service: p.service, Actions: &route.Actions{Path: pathEdits(t, route.PathOptions{Rewrite: regexp.MustCompile(slow), To: "/", Bounded: true})}},
		route.Route{Path: "/redirect", Service: p.service, Actions: &route.Actions{
			Redirect: verify.Result(route.NewRegexpRedirect(regexp.MustCompile(slow), "/", route.RedirectCodes{Code: 302}, true)).Must(t)}},
	)
	for _, front := range p.fronts() {
		for _, path := range []string{"/slow/", "/rewrite/", "/redirect/"} {
			for length, want := range map[int]string{100: map[bool]string{true: "no_route"}[path == "/slow/"], 2000: "regexp_budget"} {
				response, _ := front.ask(t, "GET", path+strings.Repeat("a", length), "")
				verify.Equal(t, response.Header.Get("X-Sluice-Reason"), want, "%s, %s, %d octets: the reason", front.name, path, length)
				verify.Equal(t, response.StatusCode, map[string]int{"": 200, "no_route": 404, "regexp_budget": 403}[want], "%s, %s: the status", front.name, path)
			}
		}
	}
}

// visibleEdits change something in every request and response.
func visibleEdits(t testing.TB) *route.Actions {
	return &route.Actions{
		Path:            pathEdits(t, route.PathOptions{Strip: "/api", Add: "/v1"}),
		HostOfPeer:      true,
		RequestHeaders:  headerEdits(t, map[string]string{"X-Set": "request"}, nil, "X-Gone"),
		ResponseHeaders: headerEdits(t, map[string]string{"X-Set": "response"}, nil, "X", "Set-Cookie"),
	}
}

// Interim responses are not edited and have no cookie, and the cookie for the peer is not removed.
func TestEditsOfInterimResponsesAndCookies(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
		io.WriteString(c.Conn, "HTTP/1.1 100 Continue\r\nX: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: 2\r\n\r\n")
		body, _ := io.ReadAll(r.Body)
		_, err := fmt.Fprintf(c.Conn, "HTTP/1.1 200 OK\r\nX: 3\r\nSet-Cookie: own=1\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return err == nil
	}))
	p := startProxy(t, Options{}, origin.address())
	p.setAffinity(balancer.PolicySticky, &route.Affinity{Cookie: "peer"})
	p.setActions(visibleEdits(t))
	conn := p.dial()
	reader := bufio.NewReader(conn)
	for range 2 {
		io.WriteString(conn, "POST /api HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
		for _, want := range []string{"100 1 ", "103 2 ", "200  response"} {
			r := verify.Result(http.ReadResponse(reader, nil)).Must(t)
			verify.Equal(t, fmt.Sprint(r.StatusCode, " ", r.Header.Get("X"), " ", r.Header.Get("X-Set")), want, "result")
			verify.Equal(t, len(r.Cookies()) > 0, r.StatusCode == 200, "%d has a cookie", r.StatusCode)
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
func TestEditsOfAttempts(t *testing.T) {
	t.Parallel()
	first, fine := startOrigin(t, func(c *originConn) bool { c.request(); return false }), startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, first.address(), fine.address())
	p.setActions(visibleEdits(t))
	for range 6 {
		conn := p.send("GET /api/x HTTP/1.1\r\nHost: a\r\nX-Gone: 1\r\n\r\n")
		expectResponse(t, conn, 200, "ok")
		conn.Close()
	}
	eventually(t, "no request in flight", func() bool { return p.inflight() == 0 })
	verify.That(t, first.got() != "", "the first peer was never asked")
	for _, o := range []*origin{first, fine} {
		got := o.got()
		requests := strings.Count(got, "GET /v1/x HTTP/1.1\r\nHost: "+o.address()+"\r\n")
		verify.That(t, requests == strings.Count(got, "GET ") && !strings.Contains(got, "X-Gone") && strings.Count(got, "X-Set: request\r\n") == requests, "the peer got %q", got)
	}
}

// A body without a length is counted while it arrives.
func TestBodyLimitOfARoute(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Limits: Limits{BodyBytes: 1000}}, answersOK(t))
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
			p.expect("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"+framing, test.want)
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
		p.expect(closingRequest, want)
	}
}
