package proxy

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/proxy/refusal"
	"sluice/route"
	"sluice/test/verify"
)

// badRequests are ambiguous or malformed, or none that sluice serves.
var badRequests = slices.Concat(
	each("POST /bad HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
		"Content-Length: 3\r\nTransfer-Encoding: chunked"+chunks, "Transfer-Encoding: chunked\r\nContent-Length: 3"+chunks,
		"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "Content-Length: 3, 4\r\n\r\nabc",
		"Content-Length: +3\r\n\r\nabc", "Content-Length: -1", "Content-Length: 0x3\r\n\r\nabc", "Content-Length: 3 3\r\n\r\nabc",
		"Content-Length:\r\n\r\nabc", "Content-Length: 18446744073709551619\r\n\r\nabc", "Content-Length : 3\r\n\r\nabc",
		"Transfer-Encoding\t: chunked"+chunks, "Content Length: 3\r\n\r\nabc", "Transfer Encoding: chunked"+chunks, "Content-Length", ": a", "X\x00Y: a",
		"Transfer-Encoding: xchunked"+chunks, "Transfer-Encoding: gzip, chunked"+chunks, "Transfer-Encoding: chunked, identity"+chunks,
		"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", "Transfer-Encoding: \vchunked"+chunks,
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"+chunks, "Transfer-Encoding:"+chunks, "Transfer-Encoding:\r\n chunked"+chunks, "X: a\r\n b",
		"X: a\x00b", "X: a\x01b", "X: a\x7fb", "X: a\rb", "X: a\r", "X: a\nY: b", "X: a\n\nGET /evil HTTP/1.1\r\nHost: a",
		"Expect: something-else\r\nContent-Length: 3\r\n\r\nabc", strings.Repeat("X: a\r\n", 100), strings.Repeat("X: "+strings.Repeat("a", 1000)+"\r\n", 20),
	),
	each("GET /bad HTTP/1.1\r\n%s\r\n",
		"", "Host:\r\n", "Host: a:b\r\n", "Host: [::1\r\n", " Host: a\r\n", "Host: a\r\nHost: b\r\n", "Host: u@a\r\n", "Host: a, b\r\n", "Host: a/b\r\n",
		"Host: a b\r\n", "X: b\r\n Host: a\r\nHost: c\r\n",
	),
	each("%s\r\nHost: a\r\n\r\n",
		"GET /bad HTTP/1.1\nX: a", "GET /bad HTTP/1.1\nHost: a\n", "GET /bad"+strings.Repeat("a", 9000)+" HTTP/1.1", "GET ftp://a/bad HTTP/1.1",
		"GET /bad HTTP/1.1x", "G@T /bad HTTP/1.1", "GET  /bad HTTP/1.1", "GET /bad bad HTTP/1.1", "GET /bad\tbad HTTP/1.1", "GET /bad#bad HTTP/1.1",
		"GET /bad\x00bad HTTP/1.1", "GET http://u:p@a/bad HTTP/1.1", "GET bad HTTP/1.1", "GET * HTTP/1.1", "GET /bad HTTP/1.2", "GET /bad HTTP/2.0",
		"GET /bad http/1.1", "GET: /bad HTTP/1.1", "CONNECT a:80 HTTP/1.1", "TRACE /bad HTTP/1.1",
	),
	each("POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%s",
		"x\r\nabc\r\n0\r\n\r\n", "00000000000000001\r\na\r\n0\r\n\r\n", "1\r\naX\n0\r\n\r\n", "+1\r\na\r\n0\r\n\r\n", "0x1\r\na\r\n0\r\n\r\n",
		" 1\r\na\r\n0\r\n\r\n", "1 \r\na\r\n0\r\n\r\n", "10000000000000001\r\na\r\n0\r\n\r\n", "1\na\r\n0\r\n\r\n", "1\r\na\n0\r\n\r\n",
		"1\r\nab\r\n0\r\n\r\n", "1;a\nb\r\na\r\n0\r\n\r\n", "1;a\x00\r\na\r\n0\r\n\r\n", "1;"+strings.Repeat("a", 10000)+"\r\na\r\n0\r\n\r\n",
		"1\r\na\r\n0\r\nX Y: a\r\n\r\n", "1\r\na\r\n0\r\nX: "+strings.Repeat("a", 10000)+"\r\n\r\n", "1\r\na\r\n0\r\n\n",
	),
	[]string{"POST /bad HTTP/1.0\r\nTransfer-Encoding: chunked" + chunks + "\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "GET /bad\r\n\r\n"},
)

const chunks = "\r\n\r\n1\r\na\r\n0"

// each returns the format with each of the parts.
func each(format string, parts ...string) (requests []string) {
	for _, part := range parts {
		requests = append(requests, fmt.Sprintf(format, part))
	}
	return requests
}

// refusedResponses are answered with 502. Chunks that are malformed from the start are found out
// before the client has got anything. The connection of the client goes on, and the peer's is not
// used again: what follows there would reach somebody else.
var refusedResponses = slices.Concat(
	each("HTTP/1.1 200 OK\r\n%s\r\n\r\nok",
		"Content-Length: 2\r\nContent-Length: 3", "Content-Length: 2, 3", "Content-Length: 2,", "Content-Length: 2\r\nContent-Length: x", "Content-Length: +2",
		"Content-Length: \x0b2", "Content-Length : 2", "Content-Length: 2\r\n 2", "Transfer-Encoding: chunked\r\nContent-Length: 2\r\nContent-Length: 3",
		"Transfer-Encoding: gzip", "X: a\r\n b\r\nContent-Length: 2", "X: a\r\n\tb\r\nContent-Length: 2", "\tX: a\r\nContent-Length: 2", "X Y: a\r\nContent-Length: 2",
		"X : a\nContent-Length: 2", "X\x01: a\r\nContent-Length: 2", "Warning\r\nContent-Length: 2", ": a\r\nContent-Length: 2", "X: \x00\r\nContent-Length: 2",
		"X: a\rb\r\nContent-Length: 2", "X: a\r\r\nContent-Length: 2", "X: a\nContent-Length: 2\r\r\n", "X: "+strings.Repeat("a", 20000)+"\r\nContent-Length: 2",
		strings.Repeat("Content-Length: 2\r\n", 101)+"X: a",
	),
	each("HTTP/1.1 200 OK\r\n%s\r\n\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding: identity", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked, chunked",
		"Transfer-Encoding: chunked,", "Transfer-Encoding:", "Transfer-Encoding: \vchunked", "Transfer-Encoding: chunked\x01", "Transfer-Encoding: x\nTransfer-Encoding: chunked",
		"Transfer-Encoding:\r\n chunked", "Transfer-Encoding: chunked\r\n , gzip", "Transfer-Encoding : chunked", "Transfer-Encoding: gzip\r\nContent-Length: 5",
	),
	each("%s\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 099 OK", "HTTP/1.1 1000 OK", "HTTP/2.0 200 OK", "HTTP/1.10 200 OK", "HTTP/1.x 200 OK", "HTTP/1.1: 200 OK", "ICY 200 OK", "HTTP/1.1 200 O\x01K", "HTTP/1.1 200 O\rK",
		"\r\nHTTP/1.1 200 OK", "\nHTTP/1.1 200 OK", "Content-Length: 2", "Transfer-Encoding: chunked",
	),
	each("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s",
		"xyz\r\n", "2\r\nokay\r\n", "2\r\nok\r\n0\r\n@\r\n\r\n", "2\r\nok\r\n0\r\n@", " 2\r\nok\r\n0\r\n\r\n", "2 2\r\nok\r\n0\r\n\r\n", "0000000000000000000000000002\r\nok\r\n0\r\n\r\n",
		"00001000000000000000\r\nok", "2\nok\r\n0\r\n\r\n", "2 \nok\r\n0\r\n\r\n", "2\r\nok\n0\r\n\r\n", "2;\r\nok\r\n0\r\n\r\n", "2;a="+strings.Repeat("b", 600)+"\r\nok\r\n0\r\n\r\n",
		"2"+strings.Repeat(" ", 600)+"\r\nok\r\n0\r\n\r\n", "2\v\r\nok\r\n0\r\n\r\n", "2\x00\r\nok\r\n0\r\n\r\n", "2;a=\x01\r\nok\r\n0\r\n\r\n",
	),
	[]string{
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", // for nothing
		"HTTP/1.1 101 Switching Protocols\nUpgrade: x\nConnection: upgrade\n\n",
		"SSH-2.0-OpenSSH_9.2\r\n\r\n",
		"SSH-2.0-OpenSSH_9.2\n",
	},
)

// A path that some server may read as that of a restricted route is refused, in whatever form it is
// sent. TestEverySpellingIsGuarded of package route, and its fuzzer, have the spellings.
func TestPathsPassNoRestriction(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	p.setRoutes(
		route.Route{Path: "/", Service: p.service},
		route.Route{Host: "shop.example", Path: "/admin", Service: p.service, Actions: &route.Actions{Access: access("192.0.2.0/24", "")}},
	)
	const evading = "/admin/%2e%2e/x"
	for target, status := range map[string]string{
		"/admin": "403", "//admin": "403", "/;/admin": "403", "/%61dmin?x": "403",
		"http://shop.example/admin": "403", "http://shop.example/x/../admin": "400",
		evading: "400", `/x\..\admin`: "400", "/admin/..;a/x": "400", "/%252e%252e/admin": "400", `\admin`: "400",
	} {
		p.expect("GET "+target+" HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n", status)
	}
	verify.Equal(t, origin.got(), "", "the peer")
	// Hosts without a restriction keep their paths, and all do if the operator wants it.
	for _, host := range []string{"other.example", "shop.example"} {
		p.expect("GET "+evading+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n", "200")
		p.change(func(o *Options) { o.KeepDotSegments = true })
	}
}

// Most refusals have the status 400.
func TestOtherStatusesOfRefusals(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	for request, status := range map[string]string{
		"GET / HTTP/1.2": "505", "CONNECT a:80 HTTP/1.1": "405", "TRACE / HTTP/1.1": "405", "PRI * HTTP/2.0\r\n\r\nXX": "405", "GET / HTTP/1.1\r\nExpect: x": "417",
	} {
		p.expect(request+"\r\nHost: a\r\n\r\n", status, "\r\nConnection: close\r\n")
	}
}

// A route that leads back to sluice is found out after a few hops, and what that
// comes to is not held against the peer.
func TestLoopIsRefused(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	p.setPeers(p.address)
	conn := p.send(getRequest)
	status, body := readResponse(t, conn)
	verify.That(t, status == 400 && strings.Contains(body, "the request has come through sluice 5 times"), "got %d %q", status, body)
	eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
	peer := p.pool.Snapshot().All[0]
	verify.Equal(t, peer.Requests(), refusal.MaxHops, "requests to the peer")
	p.expectNothingCounted()
}

func TestWhatIsNotForwarded(t *testing.T) {
	t.Parallel()
	trusted := Options{TrustedProxies: loopback}
	for _, test := range []struct {
		name, lines string
		options     Options
		reason      string // none: forwarded
	}{
		{name: "a few hops", lines: "Via: 1.1 sluice\r\nVia: 1.0 sluice, 1.1 sluice (x), HTTP/1.1 sluice\r\n"},
		{name: "one more", lines: "Via: 1.1 sluice\r\nVia: 1.0 sluice, 1.1 sluice (x),\t1.1 SLUICE, HTTP/1.1 sluice\r\n", reason: "loop"},
		{name: "many others", lines: strings.Repeat("Via: 1.1 a.sluice, 1.1 sluice2, 1.1, sluice, sluice 1.1, 1.1  \r\n", 20)},
		{name: "as many addresses as allowed", options: trusted, lines: strings.Repeat("X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n", 50)},
		{name: "one more address", options: trusted, lines: strings.Repeat("X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n", 50) + "X-Forwarded-For: 192.0.2.3\r\n", reason: "too_many_addresses"},
		{name: "in one line", options: trusted, lines: "X-Forwarded-For: 192.0.2.1" + strings.Repeat(", 192.0.2.2", 100) + "\r\n", reason: "too_many_addresses"},
		{name: "from those whose word is not taken", lines: "X-Forwarded-For: 192.0.2.1" + strings.Repeat(", 192.0.2.2", 100) + "\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			origin := startOrigin(t, answering(okResponse))
			p := startProxy(t, test.options, origin.address())
			answer := p.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + test.lines + "\r\n")
			if test.reason != "" {
				expectReason(t, answer, "400", test.reason)
				verify.Equal(t, origin.got(), "", "the peer")
			} else {
				verify.Contains(t, answer, "HTTP/1.1 200 ", "the answer")
			}
		})
	}
}

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

// docs/reasons.md has a heading or a row for each reason of the code, and for no other one.
func TestReasonsAreDocumented(t *testing.T) {
	t.Parallel()
	text := string(verify.Result(os.ReadFile("../docs/reasons.md")).Must(t))
	var inText []string
	for _, found := range regexp.MustCompile("(?m)^(?:###|\\|) `([a-z0-9_]+)`(?: \\|.*)?$").FindAllStringSubmatch(text, -1) {
		inText = append(inText, found[1])
	}
	inCode := reasonsOf(t, ".", "http1", "refusal")
	for _, reason := range inCode {
		verify.That(t, slices.Contains(inText, reason), "docs/reasons.md has no heading or row for %s", reason)
	}
	for n, reason := range inText {
		verify.That(t, slices.Contains(inCode, reason), "docs/reasons.md has a heading or row for %s, which no code gives", reason)
		verify.That(t, !slices.Contains(inText[:n], reason), "docs/reasons.md has %s twice", reason)
	}
}

var (
	reasonGiven  = regexp.MustCompile(`(?:\bError\{|(?:refusal\.|= )New\()[\w.]+, "(\w+)"|\binterrupted[\w., ]* = "(\w+)"`)
	cutReasonIn  = regexp.MustCompile(`(?s)\nfunc cutReason\(.*?\n}`)
	reasonResult = regexp.MustCompile(`\treturn "(\w+)"`)
)

// reasonsOf returns the reasons in the source text of packages: those of refusals and of errors of
// package http1, of cut exchanges (the field interrupted), and what cutReason returns.
func reasonsOf(t *testing.T, dirs ...string) []string {
	reasons := []string{refusal.ChallengeReason}
	for _, dir := range dirs {
		for _, name := range verify.Result(filepath.Glob(filepath.Join(dir, "*.go"))).Must(t) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			text := string(verify.Result(os.ReadFile(name)).Must(t))
			found := append(reasonGiven.FindAllStringSubmatch(text, -1), reasonResult.FindAllStringSubmatch(cutReasonIn.FindString(text), -1)...)
			for _, of := range found {
				reasons = append(reasons, strings.Join(of[1:], ""))
			}
		}
	}
	slices.Sort(reasons)
	return slices.Compact(reasons)
}
