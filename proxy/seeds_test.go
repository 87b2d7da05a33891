package proxy

import (
	"fmt"
	"slices"
	"strings"

	"sluice/proxy/socket"
)

// divisionsOfSeeds is in how many ways each seed of the fuzzers of the whole
// proxy arrives, by itself, with other settings and other pieces.
const divisionsOfSeeds = 8

// requestSeeds returns what clients may send. "\xfe" stands for 20,000 octets.
func requestSeeds() []string {
	seeds := []string{
		getRequest,
		"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcHEAD /3 HTTP/1.1\r\nHost: a\r\n\r\nPUT /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nY: z\r\n\r\nGET /5 HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /long HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n\xfe\xfeGET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /after HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: x\r\n\r\n4e20\r\n\xfe\r\n4e20;y\r\n\xfe\r\n0\r\nX: 1\r\nContent-Length: 9\r\n\r\nGET /next HTTP/1.0\r\n\r\n",
		"POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /cut HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
		"POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n\xfe",
		"PUT /expect HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabcGET http://b:80?x HTTP/1.1\r\nHost: c\r\nConnection: x-a, upgrade\r\nX-A: 1\r\nUpgrade: websocket\r\nX_B: 2\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\n\r\nOPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nVia: 1.0 b\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX: " + "y\r\n z\n\r\x00\t\x7f: ,;=\"'%@#[]_-",

		// Requests that fill the buffer of a connection again and again.
		strings.Repeat("POST /fill HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n"+strings.Repeat("b", 5000), 5) + "GET /last HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /long HTTP/1.1\r\nHost: a\r\nX-Long: " + strings.Repeat("y", 15000) + "\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /fits HTTP/1.1\r\nHost: a\r\nContent-Length: 16300\r\n\r\n" + strings.Repeat("c", 16300) + "GET /next HTTP/1.1\r\nHost: a\r\n\r\n",
		// Bodies that do not, with something behind them.
		"PUT /60000 HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n\xfe\xfe\xfeGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
		"PUT /80000 HTTP/1.1\r\nHost: a\r\nContent-Length: 80000\r\n\r\n\xfe\xfe\xfe\xfeGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
		"PUT /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4e20\r\n\xfe\r\n4e20\r\n\xfe\r\n0\r\n\r\nPUT /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4e20\r\n\xfe\r\n0\r\nX: y\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
		// Bodies cut short, at every place where that could pass for an end.
		"POST /cut HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
		"POST /cut HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"POST /cut HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4e20\r\n\xfe\r\n",
		"POST /cut HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n",
		"POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
		"POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 80001\r\n\r\n\xfe\xfe\xfe\xfe",
		// Fields that end at sluice, or pose as its own.
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine, Host, Content-Length\r\nX-Mine: 1\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\nProxy-Authorization: y\r\nHTTP2-Settings: z\r\nX-Yours: 2\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Sluice-Attempts: 9\r\n\r\n",
		"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\nHost: c\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTE: trailers, deflate\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: 1\r\nHost: b\r\nContent-Type: c\r\nX_B: 2\r\nX-Forwarded-For: 6.6.6.6\r\nX-C: 3\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c, X/1\r\nX: 1\r\nupgrade: HTTP/2.0 ,H2c,, WebSocket ,h2-14\r\n\r\n" +
			"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade:\r\nUpgrade: ,h2c\r\nUpgrade: H2\r\n\r\n",
		// Malformed in ways that only the octets behind would profit from.
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcdeGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
		// Odd, but as they should be, one after the other.
		strings.Join(each("%s /a HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD", "PROPFIND", "M-SEARCH.2~x", "Purge", "DELETE", "\r\nGET"), ""),
		strings.Join(each("GET %s HTTP/1.1\r\nHost: a:80\r\n\r\n", "//a/../b/./%2e%2E/c%2Fd", "/|{}[]^`\"<>\\~!$&'()*+,;=:@", "/\xc3\xa9?\xff", "/a??b?=/?",
			"http://a/b", "HTTP://a:80?b", "http://a", "/"+strings.Repeat("a", 8000)), ""),
		strings.Join(each("GET /a HTTP/1.1\r\n%s\r\n\r\n", "Host: [::1]:8080", "Host: My_Host.Example.:81", "Host: a\r\nContent-Length: 3\r\n\r\na",
			"Host:a\r\nEmpty:\r\nX:\t b \t\r\n!#$%&'*+-.^`|~0: \xff \"(,)\" =;\r\nCookie: a={\"b\"}\r\nCookie: c", "Host: a\r\nMax-Forwards: 0",
			"Host: a\r\nConnection: , keep-alive,,X-A\r\nX-A: 1\r\nProxy-Connection: keep-alive\r\nTE: trailers, deflate;q=0.5",
			"Host: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", "Host: a"+strings.Repeat("\r\nX: a", 99)), ""),
		strings.Join(each("POST /a HTTP/1.1\r\nHost: a\r\n%s", "\r\n", "Content-Length: 0\r\n\r\n", "Content-Length: 0003\r\n\r\nabc", "Content-Length: \t 3 \t\r\n\r\nabc",
			"transfer-encoding:CHUNKED\r\n\r\n00A\r\n0123456789\r\n000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n3;x=\"y z\";w\r\nabc\r\n0;last\r\n\r\n",
			"Transfer-Encoding: chunked\r\n\r\n"+strings.Repeat("1\r\na\r\n", 1000)+"0\r\n\r\n"), ""),
	}
	for _, room := range []int{200, 100, 0} { // chunks that end where the buffer does
		n := socket.RequestBufferBytes - room
		seeds = append(seeds, fmt.Sprintf("POST /fits HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nX: y\r\n\r\n"+
			"PUT /next HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbodyGET /3 HTTP/1.1\r\nHost: a\r\n\r\n", n, strings.Repeat("x", n)))
	}
	for _, refused := range badRequests {
		seeds = append(seeds, refused+"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	return seeds
}

// responseSeeds returns what peers may answer. "\xfe" stands for 20,000 octets.
func responseSeeds() []string {
	seeds := []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL",
		"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\nSet-Cookie: a\r\nset-cookie: b\r\n\r\n3;x\r\nabc\r\n4e20\r\n\xfe\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 200 OK\r\nConnection: close, x-a\r\nX-A: 1\r\n\r\nuntil closed \xfe",
		"HTTP/1.0 404 Not Found\r\n\r\n",
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 20000\r\n\r\n\xfe",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\nabcde",
		"HTTP/1.1 200 OK\r\nContent-Length: 80000\r\n\r\n\xfe\xfe\xfe\xfe",
		"HTTP/1.1 200 OK\r\nContent-Length: 80001\r\n\r\n\xfe\xfe\xfe\xfe",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
		"HTTP/1.1 200\nA : b\r\n c\r\r\n\x00\t\x7f\r\n\r\n",

		// Bodies that end at, and around, the end of a buffer.
		"HTTP/1.1 200 OK\r\nContent-Length: 16338\r\n\r\n" + strings.Repeat("y", 16338),
		"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n\xfe",
		"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n\xfe\xfe\xfe",
		"HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("y", 15000) + "\r\nContent-Length: 5\r\n\r\nabcde",
		"HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("y", 15000) + "\r\nTransfer-Encoding: chunked\r\n\r\n4e20\r\n\xfe\r\n0\r\n\r\n",
		// Without a body, with and without octets that look like one.
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcdefgh",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4e20\r\n\xfe\r\n0\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL",
		// The connection ends, though it does not say so by closing at once.
		"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
		// Cut short, at every place where that could pass for an end.
		"HTTP/1.1 200 OK\r\n",
		"HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 999 Odd\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd",
		"HTTP/1.1 200 OK\r\nContent-Length: 60001\r\n\r\n\xfe\xfe\xfe",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4e20\r\n\xfe\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n",
		// Trailers that pose as something else.
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: 1\r\nSet-Cookie: evil\r\nContent-Length: 9\r\nX_B: 2\r\nX-C: 3\r\n\r\n",
		// Malformed chunks.
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
		// Interim responses and the final one in all pieces.
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Z: z\r\n\r\nabc",
		"HTTP/1.1 426 Upgrade Required\r\nUpgrade: x\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n",
	}
	return slices.Concat(seeds, oddResponses, refusedResponses)
}
