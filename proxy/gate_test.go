package proxy

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/test/verify"
)

// What an attacker may send to make two servers read one message differently,
// or to hurt. Each is refused with the connection closed, and the peer sees
// nothing of it.
func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	for _, test := range badRequests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			origin := startOrigin(t, answering(okResponse))
			p := startProxy(t, Options{}, origin.address())
			answer := p.raw(test.request)
			status := fmt.Sprintf("HTTP/1.1 %d ", cmp.Or(test.status, 400))
			verify.That(t, strings.HasPrefix(answer, status), "got %.100q, want %s", answer, status)
			verify.That(t, strings.Contains(answer, "\r\nConnection: close\r\n") && strings.Contains(answer, "\r\nX-Sluice-Reason: "), "got %.200q, want it to close the connection and to give a reason", answer)
			verify.Equal(t, strings.Count(answer, "HTTP/1.1 "), 1, "answers: %.300q", answer)
			got := origin.got()
			verify.That(t, !strings.Contains(got, "evil") && !strings.HasSuffix(got, "0\r\n\r\n") && (test.inBody || got == ""), "the peer got %q", got)
		})
	}
}

// A head that arrives byte by byte is the same head.
func TestRequestByteByByte(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	conn := p.dial()
	request := "\r\nPOST /a/../b?c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
	for i := range len(request) {
		verify.Result(conn.Write([]byte(request[i : i+1]))).Must(t)
		time.Sleep(100 * time.Microsecond)
	}
	var answer strings.Builder
	readAll(&answer, conn)
	verify.That(t, strings.HasSuffix(answer.String(), "\r\n\r\nok"), "got %q", answer.String())
	got := origin.got()
	verify.That(t, strings.HasPrefix(got, "POST /a/../b?c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n") && strings.HasSuffix(got, "\r\n\r\nabc"), "the peer got %q", got)
}

// refusedResponses are answered with 502.
var refusedResponses = []struct{ name, response string }{
	{"length and coding", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok"},
	{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"},
	{"length +2", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok"},
	{"coding gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok"},
	{"coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"NUL in value", "HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 2\r\n\r\nok"},
	{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"},
	{"folded field", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok"},
	{"space before colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok"},
	{"status 099", "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"status 999", "HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"101 for nothing", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"},
	{"no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n"},
	{"head too long", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 20000) + "\r\nContent-Length: 2\r\n\r\nok"},
}

// What a malicious or broken peer may answer: the client gets a 502, and the
// connection to the peer is not used again.
func TestRefusedResponses(t *testing.T) {
	t.Parallel()
	for _, test := range refusedResponses {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			origin := startOrigin(t, answering(test.response))
			p := startProxy(t, Options{}, origin.address())
			conn := p.dial()
			for range 2 {
				verify.Result(conn.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))).Must(t)
				expectResponse(t, conn, 502)
			}
			verify.That(t, origin.connections() >= 2, "the connection to the peer was used again")
		})
	}
}

// Bytes that a peer sends after its response, at once or a little later, never
// reach another client.
func TestSurplusBytesReachNobody(t *testing.T) {
	t.Parallel()
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
	for _, test := range []struct {
		name     string
		response string
		method   string
	}{
		{"after length", okResponse, "GET"},
		{"after chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "GET"},
		{"after 204", "HTTP/1.1 204 No Content\r\n\r\n", "GET"},
		{"after 304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 44\r\n\r\n", "GET"},
		{"after HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n", "HEAD"},
	} {
		for _, later := range []time.Duration{0, time.Microsecond, 2 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s, %v later", test.name, later), func(t *testing.T) {
				t.Parallel()
				sent := make(chan struct{}, 1)
				origin := startOrigin(t, afterRequest(func(c *originConn) bool {
					if later == 0 {
						c.Conn.Write([]byte(test.response + evil))
					} else {
						c.Conn.Write([]byte(test.response))
						time.Sleep(later)
						c.Conn.Write([]byte(evil))
					}
					sent <- struct{}{}
					return true
				}))
				p := startProxy(t, Options{}, origin.address())
				conn := p.dial()
				for range 5 {
					verify.Result(fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: a\r\n\r\n", test.method)).Must(t)
					_, body := readResponseTo(t, conn, test.method)
					verify.Require(t, !strings.Contains(body, "EVIL"), "a client got %q", body)
					<-sent
				}
			})
		}
	}
}
