package proxy

import (
	"bufio"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/proxy/socket"
	"sluice/test/verify"
)

// The peer gets the request byte for byte, but for what ends at this hop and what sluice adds. The
// seeds of FuzzProxy have other requests.
func TestRequestHeadAsSent(t *testing.T) {
	t.Parallel()
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	const added = "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-Host: a\r\nX-Forwarded-Proto: http\r\nVia: 1.1 sluice\r\n\r\n"
	for _, test := range []struct {
		name, request, want string
		options             Options
	}{
		{name: "order, case and repetition of fields",
			request: "GET /a//b/../c%2Fd?x=%zz&y=|;z HTTP/1.1\r\nzebra:1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\nCookie: a=1\r\nX-A:  3 \t\r\nCookie: b=2\r\nEmpty:\r\n\r\n",
			want:    "GET /a//b/../c%2Fd?x=%zz&y=|;z HTTP/1.1\r\nzebra:1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\nCookie: a=1\r\nX-A:  3 \t\r\nCookie: b=2\r\nEmpty:\r\n" + added},
		{name: "what ends at this hop",
			request: "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine, Host,\r\nKeep-Alive: timeout=5\r\nX-Mine: 1\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nX-Yours: 2\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\nProxy-Authorization: Basic x\r\nX-Last: 3\r\nconnection: X-Last\r\n\r\n",
			want:    "GET / HTTP/1.1\r\nHost: a\r\nX-Yours: 2\r\n" + added},
		{name: "a client's word for others is not taken",
			request: "GET / HTTP/1.1\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nHost: a\r\n\r\n",
			want:    "GET / HTTP/1.1\r\nHost: a\r\n" + added},
		{name: "but a trusted proxy's is",
			options: Options{TrustedProxies: loopback, KeepUnderscores: true},
			request: "GET / HTTP/1.1\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: good\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7, 8.8.8.8\r\nX_A: 1\r\nHost: a\r\nVia: 1.0 other\r\n\r\n",
			want:    "GET / HTTP/1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: good\r\nX_A: 1\r\nHost: a\r\nVia: 1.0 other\r\nX-Forwarded-For: 6.6.6.6, 7.7.7.7, 8.8.8.8, 127.0.0.1\r\nX-Real-IP: 8.8.8.8\r\nVia: 1.1 sluice\r\n\r\n"},
		{name: "but not about a client's certificate",
			options: Options{TrustedProxies: loopback, KeepUnderscores: true},
			request: "GET / HTTP/1.1\r\nX-Forwarded-Client-Cert: Hash=1\r\nx-forwarded-CLIENT-cert: Hash=2\r\nX_Forwarded_Client_Cert: Hash=3\r\nHost: a\r\n\r\n",
			want:    "GET / HTTP/1.1\r\nHost: a\r\n" + added},
		{name: "however many lines came before the trusted proxy's",
			options: Options{TrustedProxies: loopback},
			request: "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For:\r\n", 40) + "X-Forwarded-For: 203.0.113.9\r\n\r\n",
			want:    "GET / HTTP/1.1\r\nHost: a\r\n" + strings.NewReplacer("For: ", "For: "+strings.Repeat("6.6.6.6, ", 40)+"203.0.113.9, ", "IP: 127.0.0.1", "IP: 203.0.113.9").Replace(added)},
		{name: "an upgrade, but not to HTTP/2",
			request: "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c, X/1\r\nX: 1\r\nupgrade: HTTP/2.0 ,H2c,, WebSocket ,h2-14\r\n\r\n",
			want:    "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nUpgrade: X/1, WebSocket\r\nConnection: Upgrade\r\n" + added},
		{name: "an upgrade to HTTP/2 on several lines, and to nothing",
			request: "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade:\r\nUpgrade: ,h2c\r\nUpgrade: H2\r\n\r\n",
			want:    "GET / HTTP/1.1\r\nHost: a\r\n" + added},
		{name: "Forwarded when asked for",
			options: Options{Forwarded: true},
			request: "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
			want:    "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-Host: a\r\nX-Forwarded-Proto: http\r\nForwarded: for=127.0.0.1;proto=http\r\nVia: 1.1 sluice\r\n\r\n"},
		{name: "absolute form",
			request: "GET http://a:80/b?c HTTP/1.1\r\nHost: other\r\nX: 1\r\n\r\n",
			want:    "GET /b?c HTTP/1.1\r\nHost: a:80\r\nX: 1\r\n" + strings.Replace(added, "Host: a", "Host: a:80", 1)},
		{name: "OPTIONS with Max-Forwards",
			request: "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 10\r\n\r\n",
			want:    "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 9\r\n" + added},
		{name: "HTTP/1.0",
			request: "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
			want:    "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Replace(added, "Via: 1.1", "Via: 1.0", 1)},
		{name: "trailers wanted",
			request: "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers, deflate\r\nConnection: TE\r\n\r\n",
			want:    "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n" + added},
		{name: "chunked body",
			request: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \t CHUNKED \r\nTrailer: X-Sum\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-Sum: 1\r\nContent-Length: 5\r\nX_Y: 1\r\nX-Forwarded-Client-Cert: Hash=1\r\n\r\n",
			want:    "POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n" + added + "3;x=y\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			origin := startOrigin(t, answering(okResponse))
			p := startProxy(t, test.options, origin.address())
			conn := p.send(test.request)
			expectResponse(t, conn, 200, "ok")
			want := test.want
			if overTLS(t) {
				want = strings.NewReplacer("X-Forwarded-Proto: http\r\n", "X-Forwarded-Proto: https\r\n", ";proto=http\r\n", ";proto=https\r\n").Replace(want)
			}
			got := origin.got()
			verify.That(t, got == want, "the peer got\n%q, want\n%q", got, want)
		})
	}
}

// The client gets the response byte for byte, but for what ends at this hop.
func TestResponseAsSent(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, request, response, want string }{
		{"order, case and repetition of fields", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
			"HTTP/1.1 200 Fine by me\r\nset-cookie: a\r\nX-B: 2\r\nSet-Cookie: b\r\nx-b:1\r\nContent-Length: 2\r\nServer: y\r\nServer: z\r\n\r\nok",
			"HTTP/1.1 200 Fine by me\r\nset-cookie: a\r\nX-B: 2\r\nSet-Cookie: b\r\nx-b:1\r\nContent-Length: 2\r\nServer: y\r\nServer: z\r\n\r\nok"},
		{"what ends at this hop", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
			"HTTP/1.1 200 OK\r\nConnection: keep-alive, x-mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nX: 1\r\nProxy-Connection: x\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 2\r\n\r\nok"},
		{"no reason", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
			"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok"},
		{"the peer closes, the client's connection stays", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
			"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"the client closes", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"},
		{"HTTP/1.0 peer, ended by closing", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
			"HTTP/1.0 200 OK\r\nX: 1\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nX: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
		{"HTTP/1.0 client, ended by closing", "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
			"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"},
		{"HTTP/1.0 client, kept", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"},
		{"HTTP/1.0 client never gets chunks", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3\r\nabc\r\n0\r\nX: 1\r\n\r\n",
			"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nokabc"},
		{"chunks as sent", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2;a=b\r\nok\r\n003\r\nabc\r\n0\r\nX: 1\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n003\r\nabc\r\n0\r\n\r\n"},
		{"trailers for who takes them", "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nok\r\n0\r\nX: 1\r\nSet-Cookie: evil\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: 1\r\n\r\n"},
		{"HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n"},
		{"HEAD of chunks", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"HEAD of chunks and HTTP/1.0", "HEAD / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
			"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n"},
		{"interim responses", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
			"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"interim responses and HTTP/1.0", "GET / HTTP/1.0\r\n\r\n",
			"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			closes := strings.HasPrefix(test.response, "HTTP/1.0") || strings.Contains(strings.ToLower(test.response), "connection: close")
			origin := startOrigin(t, afterRequest(func(c *originConn) bool {
				io.WriteString(c.Conn, test.response)
				return !closes
			}))
			p := startProxy(t, Options{}, origin.address())
			conn := p.send(test.request)
			got := make([]byte, len(test.want))
			_, err := io.ReadFull(conn, got)
			verify.That(t, err == nil, "read: %v", err)
			verify.Require(t, string(got) == test.want, "got\n%q, want\n%q", got, test.want)
			// The connection goes on, or is closed, as was said.
			if strings.Contains(test.want, "Connection: close") {
				expectRest(t, conn, "")
				return
			}
			io.WriteString(conn, test.request)
			_, err = io.ReadFull(conn, got)
			verify.That(t, err == nil && string(got) == test.want, "the second time got\n%q, %v, want\n%q", got, err, test.want)
		})
	}
}

// A client that closes its sending side right after its request gets its
// response and then the end of the connection.
func TestHalfClosedClient(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	for answered := 0; answered < 20; {
		conn, begin := p.dial(), time.Now()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		closeWrite(t, conn)
		got, err := io.ReadAll(conn)
		if time.Since(begin) > socket.FirstProbe {
			continue // the machine stood still: a client that has closed its half counts as gone by then
		}
		verify.Require(t, err == nil && strings.HasSuffix(string(got), "ok"), "got %q, %v", got, err)
		answered++
	}
}

// What the peer sends goes to the client at once, however it is framed.
func TestStreamsAtOnce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, head, begun, one, two string }{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "", "one", "two"},
		{"length, with the start of the body", "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n", "ab", "one", "two"},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", "3\r\none\r\n", "3\r\ntwo\r\n0\r\n\r\n"},
		{"until close", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", "", "one", "two"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			proceed := make(chan struct{})
			origin := startOrigin(t, afterRequest(func(c *originConn) bool {
				io.WriteString(c.Conn, test.head+test.begun)
				<-proceed
				io.WriteString(c.Conn, test.one)
				<-proceed
				io.WriteString(c.Conn, test.two)
				return test.name != "until close"
			}))
			p := startProxy(t, Options{}, origin.address())
			conn := p.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			r, err := http.ReadResponse(bufio.NewReader(conn), nil) // the head alone
			verify.NoError(t, err)
			expectNext(t, r.Body, test.begun)
			proceed <- struct{}{}
			expectNext(t, r.Body, "one")
			proceed <- struct{}{}
			rest, err := io.ReadAll(r.Body)
			verify.Require(t, err == nil && string(rest) == "two", "got %q, %v", rest, err)
		})
	}
}
