package proxy

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// A client that goes away amid a request is noticed at once, however closely
// the end of its connection follows its last bytes.
func TestClientThatLeavesAmidRequest(t *testing.T) {
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
			conn, err := net.Dial("tcp", p.address)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(conn, half)
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	}
	eventually(t, "no connection is left", func() bool { return p.Connections() == 0 })
}

// An interim response is no answer: where no final one follows it, sluice gives
// one, so that the next response is not taken for it.
func TestInterimResponseAndNothingElse(t *testing.T) {
	const hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
	for name, then := range map[string]string{"the end": "", "half a head": "HTTP/1.1 200", "a malformed head": "HTTP/1.1 999 Odd\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			origin := startOrigin(t, func(c *originConn) bool {
				r, ok := c.request()
				if !ok {
					return false
				}
				if r.URL.Path == "/hints" {
					io.WriteString(c.Conn, hints+then)
					return false
				}
				_, err := io.WriteString(c.Conn, okResponse)
				return err == nil
			})
			p := startProxy(t, Options{}, origin.address())
			conn := p.dial()
			for range 2 {
				fmt.Fprint(conn, "GET /hints HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
				got := make([]byte, len(hints))
				if _, err := io.ReadFull(conn, got); err != nil || string(got) != hints {
					t.Fatalf("got %q, %v", got, err)
				}
				if status, body := readResponse(t, conn); status != 502 || !strings.Contains(body, "star") {
					t.Errorf("got %d %q, want 502", status, body)
				}
				if status, body := readResponse(t, conn); status != 200 || body != "ok" {
					t.Errorf("the next request got %d %q", status, body)
				}
			}
		})
	}
}

// A connection to a peer that has sent a malformed trailer section is not used
// again: what follows there would reach somebody else.
func TestMalformedTrailerEndsConnection(t *testing.T) {
	for _, version := range []string{"HTTP/1.0", "HTTP/1.1"} {
		t.Run(version, func(t *testing.T) {
			origin := startOrigin(t, func(c *originConn) bool {
				r, ok := c.request()
				if !ok {
					return false
				}
				response := okResponse
				if r.URL.Path == "/malformed" {
					response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n@"
				}
				_, err := io.WriteString(c.Conn, response)
				return err == nil
			})
			p := startProxy(t, Options{}, origin.address())
			malformed, next := p.dial(), p.dial()
			fmt.Fprintf(malformed, "GET /malformed %s\r\nHost: a\r\n\r\n", version)
			io.ReadAll(malformed)
			fmt.Fprint(next, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if status, body := readResponse(t, next); status != 200 || body != "ok" {
				t.Fatalf("the next request got %d %q", status, body)
			}
			if n := origin.connections(); n != 2 {
				t.Errorf("%d connections to the peer, want 2", n)
			}
		})
	}
}
