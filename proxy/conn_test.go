package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/proxy/socket"
	"sluice/test/verify"
)

// A client that goes away amid a request is noticed at once, however closely
// the end of its connection follows its last bytes.
func TestClientThatLeavesAmidRequest(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	never := time.Hour
	p := startProxy(t, Options{Timeouts: Timeouts{never, never, never, never}}, origin.address())
	for _, half := range []string{
		"GET / HTT",
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nab",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
	} {
		for range 20 {
			conn := verify.Result(net.Dial("tcp", p.address)).Must(t)
			io.WriteString(conn, half)
			closeWrite(t, conn)
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	}
	eventually(t, "no connection is left", func() bool { return p.Connections() == 0 })
}

// An interim response is no answer: where no final one follows it, sluice gives
// one, so that the next response is not taken for it.
func TestInterimResponseAndNothingElse(t *testing.T) {
	t.Parallel()
	const hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
	for name, then := range map[string]string{"the end": "", "half a head": "HTTP/1.1 200", "a malformed head": "HTTP/1.1 999 Odd\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
				if r.URL.Path == "/hints" {
					io.WriteString(c.Conn, hints+then)
					return false
				}
				return c.write(okResponse)
			}))
			p := startProxy(t, Options{}, origin.address())
			conn := p.dial()
			for range 2 {
				fmt.Fprint(conn, "GET /hints HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
				expectNext(t, conn, hints)
				status, body := readResponse(t, conn)
				verify.That(t, status == 502 && strings.HasPrefix(body, "502 Bad Gateway: the service's instance"), "got %d %q, want 502", status, body)
				expectResponse(t, conn, 200, "ok")
			}
		})
	}
}

// A connection to a peer that has sent a malformed trailer section is not used
// again: what follows there would reach somebody else.
func TestMalformedTrailerEndsConnection(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"HTTP/1.0", "HTTP/1.1"} {
		t.Run(version, func(t *testing.T) {
			origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
				response := okResponse
				if r.URL.Path == "/malformed" {
					response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n@"
				}
				return c.write(response)
			}))
			p := startProxy(t, Options{}, origin.address())
			malformed, next := p.dial(), p.dial()
			fmt.Fprintf(malformed, "GET /malformed %s\r\nHost: a\r\nConnection: close\r\n\r\n", version)
			io.ReadAll(malformed)
			fmt.Fprint(next, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			expectResponse(t, next, 200, "ok")
			verify.Equal(t, origin.connections(), 2, "connections to the peer")
		})
	}
}

// Requests that come in one read with the end of a chunked body are not lost,
// wherever it ends.
func TestPipelinedBehindChunks(t *testing.T) {
	t.Parallel()
	origin := startEchoOrigin(t)
	p := startProxy(t, Options{}, origin.address())
	for _, size := range []int{1, socket.RequestBufferBytes - 200, socket.RequestBufferBytes - 100, socket.RequestBufferBytes, 3 * socket.RequestBufferBytes, 3 * socket.RelayBufferBytes} {
		for _, parts := range []int{1, 3} {
			body := strings.Repeat("x", size)
			next := strings.Repeat("y", size/2)
			head := "POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
			chunked := fmt.Sprintf(head+"%x\r\n%s\r\n0\r\nX: y\r\n\r\n", 1, size, body)
			all := chunked + chunked + fmt.Sprintf("PUT /2 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(next), next) + chunked +
				"GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
			conn := p.dial()
			go func() {
				for i := range parts {
					io.WriteString(conn, all[len(all)*i/parts:len(all)*(i+1)/parts])
					time.Sleep(time.Millisecond)
				}
			}()
			for i, want := range []string{echo("POST", "/1", body), echo("POST", "/1", body), echo("PUT", "/2", next), echo("POST", "/1", body), echo("GET", "/3", "")} {
				status, got := readResponse(t, conn)
				verify.Require(t, status == 200 && got == want, "size %d, parts %d, request %d: got %d %q, want %q", size, parts, i, status, got, want)
			}
		}
	}
}

// A tunnel whose client has closed its sending side goes on the other way,
// however long the peer takes.
func TestHalfClosedTunnelGoesOn(t *testing.T) {
	t.Parallel()
	late := make(chan struct{})
	origin := startOrigin(t, afterRequest(func(c *originConn) bool {
		io.WriteString(c.Conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
		io.Copy(io.Discard, c)
		<-late
		io.WriteString(c.Conn, "late")
		return false
	}))
	p := startProxy(t, Options{}, origin.address())
	conn := p.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
	const switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
	verify.Result(io.ReadFull(conn, make([]byte, len(switched)))).Must(t)
	closeWrite(t, conn)
	p.sweptFor(looks)
	close(late)
	expectRest(t, conn, "late")
}
