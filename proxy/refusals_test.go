package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

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
