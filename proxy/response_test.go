package proxy

import (
	"fmt"
	"io"
	"net/http"
	"sluice/test/verify"
	"strings"
	"testing"
)

// A 204 has no body, whatever its fields say. A peer that announces one there
// may send it, too, and what it sends would be taken for its next response.
func TestNoReuseBehindAnnouncedBodyThatIsNone(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		method, head string
		reused       bool
	}{
		{"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n", false},
		{"POST", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n", false},
		{"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n", true},
		{"GET", "HTTP/1.1 204 No Content\r\n", true},
		{"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n", true}, // what a 200 would have
		{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", true},
	} {
		t.Run(test.method+" "+test.head, func(t *testing.T) {
			t.Parallel()
			origin := startOrigin(t, afterRequest(func(c *originConn) bool {
				if c.served > 0 { // the body comes only when it can do harm
					io.WriteString(c.Conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
					return false
				}
				return c.write(test.head + "\r\n")
			}))
			p := startProxy(t, Options{}, origin.address())
			conn := p.dial()
			for range 2 {
				fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: a\r\n\r\n", test.method)
				readResponseTo(t, conn, test.method)
			}
			if reused := origin.connections() == 1; reused != test.reused {
				t.Errorf("%d connections to the peer", origin.connections())
			}
		})
	}
}

// Chunks that are malformed from the start are found out before the client has
// got anything: it is told, and its connection goes on.
func TestMalformedFirstChunk(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, test := range []struct{ name, response, version string }{
		{"size", head + "xyz\r\n", "HTTP/1.1"},
		{"end of a chunk", head + "2\r\nokay\r\n", "HTTP/1.1"},
		{"trailer section", head + "2\r\nok\r\n0\r\n@\r\n\r\n", "HTTP/1.1"},
		{"size, for a client without chunks", head + "xyz\r\n", "HTTP/1.0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
				if r.URL.Path == "/good" {
					return c.write(okResponse)
				}
				io.WriteString(c.Conn, test.response)
				return false
			}))
			p := startProxy(t, Options{}, origin.address())
			conn := p.dial()
			for range 2 {
				fmt.Fprintf(conn, "POST / %s\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", test.version)
				status, body := readResponse(t, conn)
				verify.That(t, status == 502 && strings.HasPrefix(body, "502 Bad Gateway: the service's instance"), "got %d %q, want 502", status, body)
				fmt.Fprint(conn, "GET /good HTTP/1.1\r\nHost: a\r\n\r\n")
				expectResponse(t, conn, 200, "ok")
			}
		})
	}
}
