package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A client's connection goes on when all of its request has been read, whether
// or not all of it has got to the peer: here it cannot, because the peer
// answers at its first bytes and reads no more.
func TestConnectionGoesOnBehindReadBody(t *testing.T) {
	const length = 60000 // one segment on the loopback interface
	for _, test := range []struct{ name, head, body string }{
		{"length", fmt.Sprintf("Content-Length: %d", length), strings.Repeat("x", length)},
		{"spliced", fmt.Sprintf("Content-Length: %d", 2*length), strings.Repeat("x", 2*length)},
		{"chunked", "Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", length, strings.Repeat("x", length))},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			origin := startOrigin(t, func(c *originConn) bool {
				c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
				r, err := http.ReadRequest(c.Reader)
				if err != nil {
					return false
				}
				if r.Method == "POST" {
					r.Body.Read(make([]byte, 1))
				}
				io.WriteString(c.Conn, okResponse)
				if r.Method == "POST" {
					time.Sleep(100 * time.Millisecond) // longer than anybody waits for the rest
					return false
				}
				return true
			})
			p := startProxy(t, Options{}, origin.address())
			// On a starved machine the body may arrive in two pieces, of which the
			// second has not been read when the peer answers.
			kept := 0
			for range 5 {
				conn := p.dial()
				reader := bufio.NewReader(conn)
				request := func(method, head string) *http.Response {
					fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n", method, head)
					if method == "POST" {
						io.WriteString(conn, test.body)
					}
					r, err := http.ReadResponse(reader, nil)
					if err != nil {
						t.Fatal(err)
					}
					if body, err := io.ReadAll(r.Body); err != nil || string(body) != "ok" {
						t.Fatalf("got %q, %v", body, err)
					}
					return r
				}
				request("GET", "X: y")
				for _, idle := range p.idleUpstream() {
					idle.conn.SetWriteBuffer(4 << 10)
				}
				if request("POST", test.head).Close {
					continue
				}
				kept++
				request("GET", "X: y")
			}
			if kept == 0 {
				t.Error("the connection was closed each time")
			}
		})
	}
}

// idleUpstream returns the idle connections to peers.
func (p *testProxy) idleUpstream() (conns []*upstreamConn) {
	for _, transport := range p.sweeper.allTransports() {
		transport.mu.Lock()
		conns = append(conns, transport.idle...)
		transport.mu.Unlock()
	}
	return conns
}

// So it does where the peer did not answer at all.
func TestConnectionGoesOnBehindLostUpload(t *testing.T) {
	origin := startOrigin(t, func(c *originConn) bool {
		r, ok := c.request()
		if ok && r.Method == "GET" {
			io.WriteString(c.Conn, okResponse)
		}
		return false
	})
	p := startProxy(t, Options{}, origin.address())
	conn := p.dial()
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if status, _ := readResponse(t, conn); status != 502 {
		t.Errorf("got %d", status)
	}
	if status, body := readResponse(t, conn); status != 200 || body != "ok" {
		t.Errorf("behind it got %d %q", status, body)
	}
}
