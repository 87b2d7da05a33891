package proxy

import (
	"fmt"
	"slices"
	"strings"
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
