package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/test/verify"
)

// refusedResponses are answered with 502. Chunks that are malformed from the start are found out
// before the client has got anything.
var refusedResponses = []string{
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
	"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
	"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
	"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", // for nothing
	"SSH-2.0-OpenSSH_9.2\r\n\r\n",
	"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 20000) + "\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n@\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n@",
}

// What a malicious or broken peer may answer: the client gets a 502, and its connection goes on. The
// connection to the peer is not used again: what follows there would reach somebody else.
func TestRefusedResponses(t *testing.T) {
	t.Parallel()
	for _, response := range refusedResponses {
		t.Run(fmt.Sprintf("%.80q", response), func(t *testing.T) {
			t.Parallel()
			origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
				if r.URL.Path == "/good" {
					return c.write(okResponse)
				}
				return c.write(response)
			}))
			p := startProxy(t, Options{}, origin.address())
			conn := p.dial()
			for n, version := range []string{"1.1", "1.0", "1.1"} {
				fmt.Fprintf(conn, "POST / HTTP/%s\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", version)
				expectResponse(t, conn, 502)
				fmt.Fprint(conn, "GET /good HTTP/1.1\r\nHost: a\r\n\r\n")
				expectResponse(t, conn, 200, "ok")
				verify.Equal(t, origin.connections(), n+2, "connections to the peer")
			}
		})
	}
}

// Bytes that a peer sends after its response, when nobody has asked for more, never reach another client.
// What comes with a response is in the seeds of FuzzProxyResponse.
func TestSurplusBytesReachNobody(t *testing.T) {
	t.Parallel()
	answered, sent := make(chan struct{}), make(chan struct{})
	origin := startOrigin(t, afterRequest(func(c *originConn) bool {
		c.write(okResponse)
		<-answered
		c.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL")
		sent <- struct{}{}
		return true
	}))
	p := startProxy(t, Options{}, origin.address())
	conn := p.dial()
	for range 5 {
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		expectResponse(t, conn, 200, "ok")
		answered <- struct{}{}
		<-sent
	}
}
