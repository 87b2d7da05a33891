package proxy

import (
	"slices"
	"strings"
	"testing"

	"sluice/test/verify"
)

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
