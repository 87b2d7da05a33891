package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/proxy/socket"
	"sluice/test/verify"
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

// oddResponses are malformed in ways that sluice repairs in responses of peers, and nowhere else.
var oddResponses = slices.Concat(
	each("HTTP/1.1 200 OK%s\r\n\r\nok",
		"\nContent-Length: 2", "\r\nX: a\nContent-Length: 2", "\nX: a\r\nContent-Length: 2",
		"\r\nContent-Length: 2\r\nContent-Length: 2", "\r\nContent-Length: 2\r\nX: a\r\ncontent-length: 02", "\r\nContent-Length: 2, 2", "\r\nContent-Length: 2 ,\t2\r\nContent-Length: 2",
		"\r\nX: a\x01b\r\nContent-Length: 2", "\r\nX: \x7f\x02\r\nContent-Length: 2", "\r\nConnection: close\x01\r\nContent-Length: 2", "\r\nConnection: x-a\x1f\r\nX-A: 1\r\nContent-Length: 2",
		strings.Repeat("\r\nContent-Length: 2", 100), "\r\nConnection: keep-alive\nKeep-Alive: timeout=60\r\nContent-Length: 2",
	),
	each("HTTP/1.1 200 OK%s\r\n\r\n2\r\nok\r\n0\r\nX-T: y\r\n\r\n",
		"\r\nContent-Length: 2\r\nTransfer-Encoding: chunked", "\r\nTransfer-Encoding: chunked\r\nContent-Length: 5000", "\r\nContent-Length: 3\r\nTransfer-Encoding: Chunked\r\nContent-Length: 3, 3",
		"\nTransfer-Encoding: chunked", "\r\nX: \x01\r\nTransfer-Encoding: chunked\r\nTE: trailers",
	),
	each("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s",
		"2   \r\nok\r\n0\r\n\r\n", "2\r\nok\r\n0   \r\nX-T: y\r\n\r\n", "2\t;a=b\r\nok\r\n1;c\r\n!\r\n0\r\n\r\n", "00000000000000000002\r\nok\r\n00000000000000000000\r\n\r\n",
		"2;sig="+strings.Repeat("a", 300)+"\r\nok\r\n0\r\n\r\n", "1\r\no\r\n1 \r\nk\r\n1\r\n!\r\n0 \r\n\r\n", "4e20\r\n\xfe\r\n4e20 \r\n\xfe\r\n4e20\r\n\xfe\r\n0\r\n\r\n",
		strings.Repeat("2  \r\nok\r\n2\r\nok\r\n", 2000)+"0\r\n\r\n", "2   \r\no",
	),
	[]string{
		"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
		"HTTP/1.1 200 OK\nContent-Length: 2\n\nokHTTP/1.1 200 OK\nContent-Length: 4\n\nEVIL",
		"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 0\n\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", // an app that lets others write X
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.9 200 OK\nX: \x01\nContent-Length: 2, 2\n\nok",
		"HTTP/1.1 103 Early\nLink: </a>\n\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok",
		"HTTP/1.1 103 Early\nContent-Length: 5\n\nHTTP/1.1 204 No\r\n\r\n",
		"HTTP/1.1 204 No Content\nContent-Length: 4\n\nEVIL", "HTTP/1.1 304 Not Modified\nContent-Length: 4\n\nEVIL",
		"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 4, 4\r\n\r\n", "HTTP/1.1 200 OK\nContent-Length: 20000\n\n\xfe", "HTTP/1.1 200 OK\n\nuntil closed \xfe",
		"HTTP/1.1 200 OK\n", "HTTP/1.1 200 OK\nContent-Length: 2\n", "HTTP/1.1 200 OK\nContent-Length: 2\n\n", "HTTP/1.1 200 OK\nContent-Length: 3\n\nok",
		"HTTP/1.1 200 OK\nX-Long: " + strings.Repeat("y", 15000) + "\nContent-Length: 5\n\nabcde",
		// Odd, and HTTP/1.1 all the same: the connection is used again.
		"HTTP/1.1 600 Unparseable\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 999 Denied\r\nContent-Length: 2\r\n\r\nok",
	},
)

// The bytes behind the head of a switch are the other protocol's, whatever its lines end with.
func TestOddSwitch(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startOrigin(t, func(c *originConn) bool {
		c.request()
		c.write("HTTP/1.1 101 Switching Protocols\nUpgrade: x\nConnection: upgrade\n\n\n\r\nHTTP/1.1 200 OK\n")
		return false
	}).address())
	answer := p.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
	verify.That(t, strings.HasPrefix(answer, "HTTP/1.1 101 ") && strings.HasSuffix(answer, "\r\n\r\n\n\r\nHTTP/1.1 200 OK\n"), "the client got %q", answer)
}

// An echoOrigin answers each request with what it got, and remembers it.
type echoOrigin struct {
	*origin

	mu sync.Mutex
	// mu guards the fields below.
	working   int                       // connections
	seen      map[string][]*seenRequest // by X-Forwarded-For
	ofAborted map[string]bool           // clients that may have left something behind
	stray     []string                  // what is no request by somebody known
}

// A seenRequest is a request as net/http reads it.
type seenRequest struct {
	raw          string
	method, host string
	body         string
	complete     bool
}

func startEchoOrigin(t testing.TB) *echoOrigin {
	o := &echoOrigin{seen: make(map[string][]*seenRequest), ofAborted: make(map[string]bool)}
	o.origin = startOrigin(t, func(c *originConn) bool {
		if _, err := c.Peek(1); err != nil {
			return false
		}
		o.work(1)
		defer o.work(-1)
		return o.exchange(c)
	})
	return o
}

func (o *echoOrigin) work(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.working += n
}

// idle returns how many connections are open, or -1 where one is at work.
func (o *echoOrigin) idle() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.working > 0 {
		return -1
	}
	return o.open()
}

// take returns what came from a client, and forgets it.
func (o *echoOrigin) take(t testing.TB, client netip.Addr, aborted bool) []*seenRequest {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, late := range o.seen {
		if name != client.String() && !o.ofAborted[name] && late[0].complete {
			o.stray = append(o.stray, late[0].raw)
		}
	}
	for _, raw := range o.stray {
		t.Errorf("the peer got what nobody sent: %.500q", raw)
	}
	o.stray = nil
	seen := o.seen[client.String()]
	clear(o.seen)
	o.ofAborted[client.String()] = aborted
	return seen
}

// exchange reads one request and answers it.
func (o *echoOrigin) exchange(c *originConn) bool {
	var raw bytes.Buffer
	r := &seenRequest{}
	target, client, ok := r.read(bufio.NewReader(io.TeeReader(oneByteReader{c.Reader}, &raw)))
	r.raw = raw.String()
	o.forget()
	o.mu.Lock()
	if ok {
		o.seen[client] = append(o.seen[client], r)
	} else if strings.Contains(r.raw, "\r\n\r\n") { // not a head that was cut
		o.stray = append(o.stray, r.raw)
	}
	o.mu.Unlock()
	if !r.complete {
		return false
	}
	body := echo(r.method, target, r.body)
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
	if r.method == "HEAD" {
		body = ""
	}
	return c.write(head + body)
}

func echo(method, target, body string) string {
	return fmt.Sprintf("%q %q %d %x", method, target, len(body), crc32.ChecksumIEEE([]byte(body)))
}

// read reads a request with net/http. That knows no paths but those of a URL,
// and no announcement of odd trailers: it does not get to see them.
func (r *seenRequest) read(reader *bufio.Reader) (target, client string, ok bool) {
	line, err := reader.ReadString('\n')
	method, rest, _ := strings.Cut(line, " ")
	target, version, _ := strings.Cut(rest, " ")
	head := method + " / " + version
	for err == nil {
		if line, err = reader.ReadString('\n'); line == "\r\n" {
			break
		}
		if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "X-Forwarded-For") {
			client = strings.TrimSpace(value)
		} else if strings.EqualFold(name, "Trailer") {
			continue
		}
		head += line
	}
	request, err := http.ReadRequest(bufio.NewReaderSize(io.MultiReader(strings.NewReader(head+"\r\n"), reader), 2*oracleTrailerBytes))
	if err != nil || client == "" {
		return target, client, false
	}
	r.method, r.host = request.Method, request.Host
	body, err := io.ReadAll(request.Body)
	r.body, r.complete = string(body), err == nil
	return target, client, true
}

// readWitnessed reads a request whatever its target is, which net/http would
// not. Its body may take up to mostBytes from the reader that follow the request, and
// cannot have more bytes of trailers.
func readWitnessed(reader *bufio.Reader, mostBytes int) (*http.Request, error) {
	line, err := reader.ReadString('\n')
	if err != nil {
		return nil, err
	}
	parts := strings.Split(strings.TrimRight(line, "\r\n"), " ")
	if len(parts) != 3 {
		return nil, fmt.Errorf("request line %q", line)
	}
	// Of a *bufio.Reader that is large enough, ReadRequest takes no copy.
	joined := bufio.NewReaderSize(io.MultiReader(strings.NewReader(parts[0]+" / "+parts[2]+"\r\n"), reader), mostBytes)
	r, err := http.ReadRequest(joined)
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	r.RequestURI = parts[1]
	return r, nil
}
