package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/test/verify"
)

const (
	hostHead    = "Host: a\r\n"
	chunkedHead = hostHead + "Transfer-Encoding: chunked\r\n"
)

// refusedRequests are never passed on as complete ones. The status is that of the answer.
var refusedRequests = []struct {
	name, request string
	status        int
}{
	{"length and coding", "POST / HTTP/1.1\r\n" + chunkedHead + "Content-Length: 3\r\n\r\n0\r\n\r\n", 400},
	{"coding and length", "POST / HTTP/1.1\r\n" + hostHead + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"two lengths", "POST / HTTP/1.1\r\n" + hostHead + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400},
	{"two equal lengths", "POST / HTTP/1.1\r\n" + hostHead + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
	{"list of lengths", "POST / HTTP/1.1\r\n" + hostHead + "Content-Length: 3, 3\r\n\r\nabc", 400},
	{"length +1", "POST / HTTP/1.1\r\n" + hostHead + "Content-Length: +1\r\n\r\na", 400},
	{"length -1", "POST / HTTP/1.1\r\n" + hostHead + "Content-Length: -1\r\n\r\na", 400},
	{"length 0x1", "POST / HTTP/1.1\r\n" + hostHead + "Content-Length: 0x1\r\n\r\na", 400},
	{"length empty", "POST / HTTP/1.1\r\n" + hostHead + "Content-Length: \r\n\r\na", 400},
	{"length 1 1", "POST / HTTP/1.1\r\n" + hostHead + "Content-Length: 1 1\r\n\r\na", 400},
	{"length beyond 2^64", "POST / HTTP/1.1\r\n" + hostHead + "Content-Length: 18446744073709551617\r\n\r\na", 400},
	{"space before colon", "POST / HTTP/1.1\r\n" + hostHead + "Content-Length : 1\r\n\r\na", 400},
	{"tab before colon", "POST / HTTP/1.1\r\n" + hostHead + "Content-Length\t: 1\r\n\r\na", 400},
	{"space in name", "POST / HTTP/1.1\r\n" + hostHead + "Content Length: 1\r\n\r\na", 400},
	{"space in name of coding", "POST / HTTP/1.1\r\n" + hostHead + "Transfer Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"coding xchunked", "POST / HTTP/1.1\r\n" + hostHead + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400},
	{"coding chunked, identity", "POST / HTTP/1.1\r\n" + hostHead + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400},
	{"coding gzip, chunked", "POST / HTTP/1.1\r\n" + hostHead + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400},
	{"coding identity", "POST / HTTP/1.1\r\n" + hostHead + "Transfer-Encoding: identity\r\nContent-Length: 1\r\n\r\na", 400},
	{"coding \\vchunked", "POST / HTTP/1.1\r\n" + hostHead + "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", 400},
	{"coding empty", "POST / HTTP/1.1\r\n" + hostHead + "Transfer-Encoding:\r\n\r\n0\r\n\r\n", 400},
	{"coding twice", "POST / HTTP/1.1\r\n" + chunkedHead + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"coding folded", "POST / HTTP/1.1\r\n" + hostHead + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400},
	{"coding in HTTP/1.0", "POST / HTTP/1.0\r\n" + chunkedHead + "\r\n0\r\n\r\n", 400},
	{"folded field", "GET / HTTP/1.1\r\n" + hostHead + "X: a\r\n b\r\n\r\n", 400},
	{"folded first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
	{"bare LF after field", "GET / HTTP/1.1\r\n" + hostHead + "X: a\nY: b\r\n\r\n", 400},
	{"bare LF after request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
	{"only LF", "GET / HTTP/1.1\nHost: a\n\n", 400},
	{"head ended by LF LF", "GET / HTTP/1.1\r\nHost: a\n\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"bare CR in value", "GET / HTTP/1.1\r\n" + hostHead + "X: a\rb\r\n\r\n", 400},
	{"CR CR LF", "GET / HTTP/1.1\r\n" + hostHead + "X: a\r\r\n\r\n", 400},
	{"NUL in value", "GET / HTTP/1.1\r\n" + hostHead + "X: a\x00b\r\n\r\n", 400},
	{"control in value", "GET / HTTP/1.1\r\n" + hostHead + "X: a\x01b\r\n\r\n", 400},
	{"DEL in value", "GET / HTTP/1.1\r\n" + hostHead + "X: a\x7fb\r\n\r\n", 400},
	{"NUL in name", "GET / HTTP/1.1\r\n" + hostHead + "X\x00: a\r\n\r\n", 400},
	{"no colon", "GET / HTTP/1.1\r\n" + hostHead + "XYZ\r\n\r\n", 400},
	{"empty name", "GET / HTTP/1.1\r\n" + hostHead + ": a\r\n\r\n", 400},
	{"no Host", "GET / HTTP/1.1\r\nX: a\r\n\r\n", 400},
	{"two Hosts", "GET / HTTP/1.1\r\n" + hostHead + "Host: b\r\n\r\n", 400},
	{"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
	{"user in Host", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400},
	{"list in Host", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400},
	{"space in Host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
	{"slash in Host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
	{"port no number", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400},
	{"unclosed IPv6 Host", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400},
	{"user in absolute target", "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"unknown scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"fragment", "GET /a#f HTTP/1.1\r\n" + hostHead + "\r\n", 400},
	{"tab in target", "GET /a\tb HTTP/1.1\r\n" + hostHead + "\r\n", 400},
	{"two spaces", "GET  / HTTP/1.1\r\n" + hostHead + "\r\n", 400},
	{"target without slash", "GET a HTTP/1.1\r\n" + hostHead + "\r\n", 400},
	{"GET *", "GET * HTTP/1.1\r\n" + hostHead + "\r\n", 400},
	{"HTTP/0.9", "GET /\r\n", 400},
	{"HTTP/1.2", "GET / HTTP/1.2\r\n" + hostHead + "\r\n", 505},
	{"HTTP/2.0", "GET / HTTP/2.0\r\n" + hostHead + "\r\n", 505},
	{"http/1.1", "GET / http/1.1\r\n" + hostHead + "\r\n", 400},
	{"HTTP/1.1x", "GET / HTTP/1.1x\r\n" + hostHead + "\r\n", 400},
	{"method no token", "G@T / HTTP/1.1\r\n" + hostHead + "\r\n", 400},
	{"CONNECT", "CONNECT a:80 HTTP/1.1\r\n" + hostHead + "\r\n", 405},
	{"TRACE", "TRACE / HTTP/1.1\r\n" + hostHead + "\r\n", 405},
	{"PRI", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 405},
	{"Expect: foo", "POST / HTTP/1.1\r\n" + hostHead + "Expect: foo\r\nContent-Length: 1\r\n\r\na", 417},
	{"101 fields", "GET / HTTP/1.1\r\n" + hostHead + strings.Repeat("X: a\r\n", 100) + "\r\n", 431},
	{"head too long", "GET / HTTP/1.1\r\n" + hostHead + strings.Repeat("X: "+strings.Repeat("a", 1000)+"\r\n", 20) + "\r\n", 431},
	{"target too long", "GET /" + strings.Repeat("a", 9000) + " HTTP/1.1\r\n" + hostHead + "\r\n", 414},
	{"chunk size not hex", "POST / HTTP/1.1\r\n" + chunkedHead + "\r\nx\r\nabc\r\n0\r\n\r\n", 400},
	{"chunk size +1", "POST / HTTP/1.1\r\n" + chunkedHead + "\r\n+1\r\na\r\n0\r\n\r\n", 400},
	{"chunk size 0x1", "POST / HTTP/1.1\r\n" + chunkedHead + "\r\n0x1\r\na\r\n0\r\n\r\n", 400},
	{"chunk size after space", "POST / HTTP/1.1\r\n" + chunkedHead + "\r\n 1\r\na\r\n0\r\n\r\n", 400},
	{"chunk size and space", "POST / HTTP/1.1\r\n" + chunkedHead + "\r\n1 \r\na\r\n0\r\n\r\n", 400},
	{"chunk size too long", "POST / HTTP/1.1\r\n" + chunkedHead + "\r\n00000000000000001\r\na\r\n0\r\n\r\n", 400},
	{"chunk size and LF", "POST / HTTP/1.1\r\n" + chunkedHead + "\r\n1\na\r\n0\r\n\r\n", 400},
	{"chunk data and no CRLF", "POST / HTTP/1.1\r\n" + chunkedHead + "\r\n1\r\nab\r\n0\r\n\r\n", 400},
	{"chunk data and no CR", "POST / HTTP/1.1\r\n" + chunkedHead + "\r\n1\r\naX\n0\r\n\r\n", 400},
	{"chunk data and LF", "POST / HTTP/1.1\r\n" + chunkedHead + "\r\n1\r\na\n0\r\n\r\n", 400},
	{"control in extension", "POST / HTTP/1.1\r\n" + chunkedHead + "\r\n1;a\x00\r\na\r\n0\r\n\r\n", 400},
	{"LF in extension", "POST / HTTP/1.1\r\n" + chunkedHead + "\r\n1;a\nb\r\na\r\n0\r\n\r\n", 400},
	{"long extension", "POST / HTTP/1.1\r\n" + chunkedHead + "\r\n1;" + strings.Repeat("a", 5000) + "\r\na\r\n0\r\n\r\n", 400},
	{"long trailer", "POST / HTTP/1.1\r\n" + chunkedHead + "\r\n0\r\nX: " + strings.Repeat("a", 5000) + "\r\n\r\n", 400},
	{"malformed trailer", "POST / HTTP/1.1\r\n" + chunkedHead + "\r\n0\r\nX Y: a\r\n\r\n", 400},
}

// What an attacker may send to make two servers read one message differently,
// or to hurt. Each is refused with the connection closed, and the peer sees
// nothing of it.
func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	for _, test := range refusedRequests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			origin := startOrigin(t, answering(okResponse))
			p := startProxy(t, Options{}, origin.address())
			answer := p.raw(test.request)
			verify.That(t, strings.HasPrefix(answer, fmt.Sprintf("HTTP/1.1 %d ", test.status)), "got %.100q, want status %d", answer, test.status)
			verify.That(t, strings.Contains(answer, "\r\nConnection: close\r\n") && strings.Contains(answer, "\r\nX-Sluice-Reason: "), "got %.200q, want it to close the connection and to give a reason", answer)
			verify.Equal(t, strings.Count(answer, "HTTP/1.1 "), 1, "answers: %.300q", answer)
			if got := origin.got(); strings.Contains(got, "evil") || strings.HasSuffix(got, "0\r\n\r\n") ||
				!strings.Contains(test.request, chunkedHead) && got != "" {
				t.Errorf("the peer got %q", got)
			}
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
		_, err := conn.Write([]byte(request[i : i+1]))
		verify.NoError(t, err)
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
				_, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
				verify.NoError(t, err)
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
					_, err := fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: a\r\n\r\n", test.method)
					verify.NoError(t, err)
					_, body := readResponseTo(t, conn, test.method)
					verify.Require(t, !strings.Contains(body, "EVIL"), "a client got %q", body)
					<-sent
				}
			})
		}
	}
}
