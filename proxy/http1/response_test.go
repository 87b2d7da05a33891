package http1

import (
	"strings"
	"testing"

	"sluice/test/verify"
)

// One scanner reads the fields of both heads: TestRefusedRequestHeads has more of them.
func TestRefusedResponseHeads(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, test := range []struct{ name, head string }{
		{"empty line before", "\r\n" + ok + "\r\n"},
		{"no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n"},
		{"HTTP/0.9", "<html>hello</html>\r\n\r\n"},
		{"HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n"},
		{"HTTP/1", "HTTP/1 200 OK\r\n\r\n"},
		{"ICY", "ICY 200 OK\r\n\r\n"},
		{"no status", "HTTP/1.1\r\n\r\n"},
		{"two digits", "HTTP/1.1 20 OK\r\n\r\n"},
		{"four digits", "HTTP/1.1 2000 OK\r\n\r\n"},
		{"status 099", "HTTP/1.1 099 OK\r\n\r\n"},
		{"two spaces", "HTTP/1.1  200 OK\r\n\r\n"},
		{"tab after status", "HTTP/1.1 200\tOK\r\n\r\n"},
		{"CR in reason", "HTTP/1.1 200 O\rK\r\n\r\n"},
		{"LF everywhere", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"},
		{"folded", ok + "A: b\r\n c\r\n\r\n"},
		{"length and coding", ok + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := []byte(test.head)
			for feeding := range feedings(b) {
				got := readResponse(b, feeding...)
				want := ErrResponseField
				var first ResponseHead
				first.Reset(UsualFields)
				line, _, _ := strings.Cut(test.head, "\n")
				if _, err := first.Scan([]byte(line + "\n\r\n")); err != nil { // already the status line is not
					want = ErrResponse
				}
				verify.Require(t, got.err == want, "arriving as %v: got %v %q, want %v", feeding, got.err, got.text, want)
			}
		})
	}
}

// These may be caused by the request, and are told apart.
func TestResponseHeadsWithTooManyFields(t *testing.T) {
	for _, head := range []string{
		strings.Repeat("A: b\r\n", UsualFields+1),
		"Connection: " + strings.Repeat("a,", UsualFields+1) + "\r\n",
	} {
		b := []byte("HTTP/1.1 200 OK\r\n" + head + "\r\n")
		got := readResponse(b, len(b))
		verify.That(t, got.err == ErrTooManyFields, "got %v", got.err)
	}
}

func TestAcceptedResponseHeads(t *testing.T) {
	for _, test := range []struct{ name, head, want string }{
		{"plain", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 \"200 OK\" length=2\nContent-Length=2"},
		{"no field", "HTTP/1.1 200 OK\r\n\r\n", "200 \"200 OK\""},
		{"no reason", "HTTP/1.1 404 \r\n\r\n", "404 \"404 \""},
		{"not even a space", "HTTP/1.1 404\r\n\r\n", "404 \"404\""},
		{"odd reason", "HTTP/1.1 599 \t\xc3\xa4 200 OK\r\n\r\n", "599 \"599 \\t\u00e4 200 OK\""},
		{"status of no class", "HTTP/1.1 600 Unparseable\r\n\r\n", "600 \"600 Unparseable\""},
		{"the last status", "HTTP/1.1 999 Denied\r\n\r\n", "999 \"999 Denied\""},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\n", "200 \"200 OK\" 1.0 last"},
		{"HTTP/1.0 kept", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n",
			"200 \"200 OK\" 1.0 keep-alive\nConnection=keep-alive\nKeep-Alive=timeout=5"},
		{"close", "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nX: 1\r\n\r\n", "200 \"200 OK\" last close\nConnection=x, Close\nX=1 nominated"},
		{"chunked", "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", "200 \"200 OK\" chunked\ntransfer-encoding=Chunked"},
		{"interim", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "103 \"103 Early Hints\" interim bodiless\nLink=</a>"},
		{"100", "HTTP/1.1 100 Continue\r\n\r\n", "100 \"100 Continue\" interim bodiless"},
		{"101", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\x00",
			"101 \"101 Switching Protocols\" bodiless upgrade\nUpgrade=websocket\nConnection=upgrade"},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", "204 \"204 No Content\" bodiless"},
		{"204 with length", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "204 \"204 No Content\" bodiless last length=5\nContent-Length=5"},
		{"204 with length 0", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "204 \"204 No Content\" bodiless length=0\nContent-Length=0"},
		{"304 with length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "304 \"304 Not Modified\" bodiless length=5\nContent-Length=5"},
		{"fields of requests mean nothing", "HTTP/1.1 200 OK\r\nHost: a b\r\nHost: c\r\nExpect: x\r\nA_B: c\r\n\r\n",
			"200 \"200 OK\"\nHost=a b\nHost=c\nExpect=x\nA_B=c"},
		{"repeated, ordered", "HTTP/1.1 200 OK\r\nset-cookie: a\r\nX:\r\nSet-Cookie: b \r\n\r\n", "200 \"200 OK\"\nset-cookie=a\nX=\nSet-Cookie=b"},
		{"100 fields", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", UsualFields) + "\r\n", "200 \"200 OK\"" + strings.Repeat("\nA=b", UsualFields)},
	} {
		t.Run(test.name, func(t *testing.T) {
			length := strings.Index(test.head, "\r\n\r\n") + 4
			b := []byte(test.head)
			for feeding := range feedings(b) {
				got := readResponse(b, feeding...)
				verify.Require(t, got.err == nil && got.length == length && got.text == test.want, "arriving as %v: got %v, length %d of %d\n%s\nwant\n%s", feeding, got.err, got.length, length, got.text, test.want)
			}
		})
	}
}

func TestBodilessToHead(t *testing.T) {
	var head ResponseHead
	for status, want := range map[int]bool{200: false, 404: false, 205: false, 204: true, 304: true, 100: true, 199: true} {
		head.Status = status
		verify.That(t, head.Bodiless(false) == want && head.Bodiless(true), "status %d: got %v, and to HEAD %v", status, head.Bodiless(false), head.Bodiless(true))
	}
}

// Positions in a head have 16 bits: a longer one is refused, wherever its lines end.
func TestHeadsLongerThanTheirPositions(t *testing.T) {
	for _, length := range []int{1<<16 - 1, 1 << 16, 1<<16 + 1, 1 << 17} {
		start, end := "HTTP/1.1 200 OK\r\nX: ", "\r\nY: z\r\n\r\n"
		b := []byte(start + strings.Repeat("x", length-len(start)-len(end)) + end)
		var head ResponseHead
		head.Reset(UsualFields)
		n, err := head.Scan(b)
		if length >= 1<<16 {
			verify.That(t, err != nil, "%d bytes: %d, and no error", length, n)
			continue
		}
		verify.That(t, err == nil && n == length && string(head.Fields()[1].Value(b)) == "z", "%d bytes: %d, %v", length, n, err)
	}
}

// NTLM and Negotiate authenticate a connection, wherever they are in a list.
func TestConnectionAuth(t *testing.T) {
	for field, want := range map[string]bool{
		"WWW-Authenticate: NTLM": true, "www-authenticate: negotiate": true, "WWW-Authenticate: Negotiate YII=": true, "Proxy-Authenticate: ntlm TlRM": true,
		"WWW-Authenticate: Basic realm=\"a, b\", NTLM": true, "Authorization: NTLM x": true, "AUTHORIZATION: nEGOTIATE x": true,
		"WWW-Authenticate: Basic realm=\"NTLM\"": false, "WWW-Authenticate: NTLMv2": false, "Authorization: Bearer NTLM": false, "Authorization:": false, "X-Authenticate: NTLM": false,
	} {
		var response ResponseHead
		response.Reset(UsualFields)
		n, err := response.Scan([]byte("HTTP/1.1 401 \r\n" + field + "\r\n\r\n"))
		verify.That(t, n > 0 && err == nil && response.ConnectionAuth == want, "%s: %t, %v", field, response.ConnectionAuth, err)
		var request RequestHead
		request.Reset(testTargetBytes, UsualFields)
		n, err = request.Scan([]byte("GET / HTTP/1.1\r\nHost: a\r\n" + field + "\r\n\r\n"))
		verify.That(t, n > 0 && err == nil && request.ConnectionAuth == want, "%s: %t, %v", field, request.ConnectionAuth, err)
		response.Reset(UsualFields)
		verify.That(t, !response.ConnectionAuth, "another response has it too")
	}
}
