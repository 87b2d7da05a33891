package http1

import (
	"strings"
	"testing"

	"sluice/test/verify"
)

// One scanner reads the fields of both heads: TestRefusedRequestHeads has more of them.
func TestRefusedResponseHeads(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, test := range []struct {
		name, head string
		want       error
	}{
		{"empty line before", "\r\n" + ok + "\r\n", ErrResponse},
		{"no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n", ErrResponse},
		{"HTTP/0.9", "<html>hello</html>\r\n\r\n", ErrResponse},
		{"HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n", ErrResponse},
		{"HTTP/1", "HTTP/1 200 OK\r\n\r\n", ErrResponse},
		{"no status", "HTTP/1.1\r\n\r\n", ErrResponse},
		{"two digits", "HTTP/1.1 20 OK\r\n\r\n", ErrResponse},
		{"status 2x0", "HTTP/1.1 2x0 OK\r\n\r\n", ErrResponse},
		{"tab before status", "HTTP/1.1\t200 OK\r\n\r\n", ErrResponse},
		{"four digits", "HTTP/1.1 2000 OK\r\n\r\n", ErrResponse},
		{"status 099", "HTTP/1.1 099 OK\r\n\r\n", ErrResponse},
		{"tab after status", "HTTP/1.1 200\tOK\r\n\r\n", ErrResponse},
		{"CR in reason", "HTTP/1.1 200 O\rK\r\n\r\n", ErrResponse},
		{"LF everywhere", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", ErrResponse},
		{"folded", ok + "A: b\r\n c\r\n\r\n", ErrResponseField},
		{"length and coding", ok + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", ErrResponseField},
		{"coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ErrResponseField},
		// These may be caused by the request, and are told apart.
		{"101 fields", ok + strings.Repeat("A: b\r\n", UsualFields+1) + "\r\n", ErrTooManyFields},
		{"101 options", ok + "Connection: " + strings.Repeat("a,", UsualFields+1) + "\r\n\r\n", ErrTooManyFields},
	} {
		t.Run(test.name, func(t *testing.T) {
			reading{err: test.want}.expect(t, readResponse, test.head)
		})
	}
}

func TestAcceptedResponseHeads(t *testing.T) {
	for _, test := range []struct{ name, head, want string }{
		{"plain", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 \"200 OK\" length=2\nContent-Length=2"},
		{"no reason", "HTTP/1.1 404 \r\n\r\n", "404 \"404 \""},
		{"not even a space", "HTTP/1.1 404\r\n\r\n", "404 \"404\""},
		{"odd reason", "HTTP/1.1 599 \t\xc3\xa4 200 OK\r\n\r\n", "599 \"599 \\t\u00e4 200 OK\""},
		{"status of no class", "HTTP/1.1 600 Unparseable\r\n\r\n", "600 \"600 Unparseable\""},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\n", "200 \"200 OK\" 1.0 last"},
		{"HTTP/1.0 kept", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n",
			"200 \"200 OK\" 1.0 keep-alive\nConnection=keep-alive\nKeep-Alive=timeout=5"},
		{"close", "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nX: 1\r\n\r\n", "200 \"200 OK\" last close\nConnection=x, Close\nX=1 nominated"},
		{"chunked", "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", "200 \"200 OK\" chunked\ntransfer-encoding=Chunked"},
		{"interim", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "103 \"103 Early Hints\" interim bodiless\nLink=</a>"},
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
			reading{length, nil, test.want}.expect(t, readResponse, test.head)
		})
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
