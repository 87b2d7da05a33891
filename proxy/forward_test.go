package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/proxy/socket"
	"sluice/test/verify"
)

// The peer gets the request byte for byte, but for what ends at this hop and what sluice adds. The
// seeds of FuzzProxy have what is the same for all options.
func TestRequestHeadAsSent(t *testing.T) {
	t.Parallel()
	const added = "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-Host: a\r\nX-Forwarded-Proto: http\r\nVia: 1.1 sluice\r\n\r\n"
	type test struct {
		request, want string
		options       Options
	}
	eachCase(t, map[string]test{
		"order, case and repetition of fields": {
			request: "GET /a//b/../c%2Fd?x=%zz&y=|;z HTTP/1.1\r\nzebra:1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\nCookie: a=1\r\nX-A:  3 \t\r\nCookie: b=2\r\nEmpty:\r\n\r\n",
			want:    "GET /a//b/../c%2Fd?x=%zz&y=|;z HTTP/1.1\r\nzebra:1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\nCookie: a=1\r\nX-A:  3 \t\r\nCookie: b=2\r\nEmpty:\r\n" + added},
		"a trusted proxy's word for others": {
			options: Options{TrustedProxies: loopback, Switches: Switches{KeepUnderscores: true}},
			request: "GET / HTTP/1.1\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: good\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7, 8.8.8.8\r\nX_A: 1\r\nHost: a\r\nVia: 1.0 other\r\n\r\n",
			want:    "GET / HTTP/1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: good\r\nX_A: 1\r\nHost: a\r\nVia: 1.0 other\r\nX-Forwarded-For: 6.6.6.6, 7.7.7.7, 8.8.8.8, 127.0.0.1\r\nX-Real-IP: 8.8.8.8\r\nVia: 1.1 sluice\r\n\r\n"},
		"but not about a client's certificate": {
			options: Options{TrustedProxies: loopback, Switches: Switches{KeepUnderscores: true}},
			request: "GET / HTTP/1.1\r\nX-Forwarded-Client-Cert: Hash=1\r\nx-forwarded-CLIENT-cert: Hash=2\r\nX_Forwarded_Client_Cert: Hash=3\r\nHost: a\r\n\r\n",
			want:    "GET / HTTP/1.1\r\nHost: a\r\n" + added},
		"however many lines came before the trusted proxy's": {
			options: Options{TrustedProxies: loopback},
			request: "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For:\r\n", 40) + "X-Forwarded-For: 203.0.113.9\r\n\r\n",
			want:    "GET / HTTP/1.1\r\nHost: a\r\n" + strings.NewReplacer("For: ", "For: "+strings.Repeat("6.6.6.6, ", 40)+"203.0.113.9, ", "IP: 127.0.0.1", "IP: 203.0.113.9").Replace(added)},
		"Forwarded when asked for": {
			options: Options{Switches: Switches{Forwarded: true}},
			request: getRequest,
			want:    "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-Host: a\r\nX-Forwarded-Proto: http\r\nForwarded: for=127.0.0.1;proto=http\r\nVia: 1.1 sluice\r\n\r\n"},
	}, func(t *testing.T, test test) {
		origin := startOrigin(t, answering(okResponse))
		p := startProxy(t, test.options, origin.address())
		expectResponse(t, p.send(test.request), 200, "ok")
		want := test.want
		if overTLS(t) {
			want = strings.NewReplacer("X-Forwarded-Proto: http\r\n", "X-Forwarded-Proto: https\r\n", ";proto=http\r\n", ";proto=https\r\n").Replace(want)
		}
		got := origin.got()
		verify.That(t, got == want, "the peer got\n%q, want\n%q", got, want)
	})
}

// The client gets the response byte for byte, but for what ends at this hop, and its connection
// goes on, or ends. The seeds of FuzzProxyResponse have other responses.
func TestResponseAsSent(t *testing.T) {
	t.Parallel()
	type test struct{ request, response, want string }
	eachCase(t, map[string]test{
		"order, case and repetition of fields": {getRequest,
			"HTTP/1.1 200 Fine by me\r\nset-cookie: a\r\nX-B: 2\r\nSet-Cookie: b\r\nx-b:1\r\nContent-Length: 2\r\nServer: y\r\nServer: z\r\n\r\nok",
			"HTTP/1.1 200 Fine by me\r\nset-cookie: a\r\nX-B: 2\r\nSet-Cookie: b\r\nx-b:1\r\nContent-Length: 2\r\nServer: y\r\nServer: z\r\n\r\nok"},
		"no reason": {getRequest,
			"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok"},
		"the peer closes, the client's connection stays": {getRequest,
			"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		"the client closes": {closingRequest,
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"},
		"HTTP/1.0 client, ended by closing": {"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
			"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"},
		"HTTP/1.0 client, kept": {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"},
		"HEAD of chunks and HTTP/1.0": {"HEAD / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
			"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n"},
	}, func(t *testing.T, test test) {
		closes := strings.Contains(strings.ToLower(test.response), "connection: close")
		origin := startOrigin(t, afterRequest(func(c *originConn) bool {
			io.WriteString(c.Conn, test.response)
			return !closes
		}))
		p := startProxy(t, Options{}, origin.address())
		conn := p.send(test.request)
		expectNext(t, conn, test.want)
		// The connection goes on, or is closed, as was said.
		if strings.Contains(test.want, "Connection: close") {
			expectRest(t, conn, "")
			return
		}
		io.WriteString(conn, test.request)
		expectNext(t, conn, test.want)
	})
}

// A client that closes its sending side right after its request gets its
// response and then the end of the connection.
func TestHalfClosedClient(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, answersOK(t))
	for answered := 0; answered < 20; {
		conn, begin := p.dial(), time.Now()
		io.WriteString(conn, getRequest)
		closeWrite(t, conn)
		got, err := io.ReadAll(conn)
		if time.Since(begin) > socket.FirstProbe {
			continue // the machine stood still: a client that has closed its half counts as gone by then
		}
		verify.Require(t, err == nil && strings.HasSuffix(string(got), "ok"), "got %q, %v", got, err)
		answered++
	}
}

// A client that goes away amid a request is noticed at once, however closely
// the end of its connection follows its last bytes.
func TestClientThatLeavesAmidRequest(t *testing.T) {
	t.Parallel()
	never := time.Hour
	p := startProxy(t, Options{Timeouts: Timeouts{never, never, never, never}}, answersOK(t))
	for _, half := range []string{
		"GET / HTT",
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nab",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
	} {
		for range 20 {
			conn := p.send(half)
			closeWrite(t, conn)
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	}
	eventually(t, "no connection is left", func() bool { return p.Connections() == 0 })
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
	expectNext(t, conn, switched)
	closeWrite(t, conn)
	p.sweptFor(looks)
	close(late)
	expectRest(t, conn, "late")
}

// Bytes that a peer sends after its response, when nobody has asked for more, never reach another
// client. What comes with a response is in the seeds of FuzzProxyResponse.
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
		fmt.Fprint(conn, getRequest)
		expectResponse(t, conn, 200, "ok")
		answered <- struct{}{}
		<-sent
	}
}

// What the peer sends goes to the client at once, however it is framed.
func TestStreamsAtOnce(t *testing.T) {
	t.Parallel()
	type test struct{ head, begun, one, two string }
	eachCase(t, map[string]test{
		"length":                             {"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "", "one", "two"},
		"length, with the start of the body": {"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n", "ab", "one", "two"},
		"chunks":                             {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", "3\r\none\r\n", "3\r\ntwo\r\n0\r\n\r\n"},
		"until close":                        {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", "", "one", "two"},
	}, func(t *testing.T, test test) {
		proceed := make(chan struct{})
		origin := startOrigin(t, afterRequest(func(c *originConn) bool {
			io.WriteString(c.Conn, test.head+test.begun)
			<-proceed
			io.WriteString(c.Conn, test.one)
			<-proceed
			io.WriteString(c.Conn, test.two)
			return !strings.Contains(test.head, "event-stream") // which ends with the connection
		}))
		p := startProxy(t, Options{}, origin.address())
		conn := p.send(getRequest)
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
