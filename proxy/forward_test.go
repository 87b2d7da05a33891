package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/config/units"
	"sluice/proxy/http1"
	"sluice/proxy/socket"
	"sluice/proxy/upstream"
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

// padding returns n header fields, of that many bytes together as lines.
func padding(n, bytes int) http.Header {
	header := make(http.Header, n)
	for i := range n {
		name := fmt.Sprintf("X-Pad-%04d", i)
		header.Set(name, strings.Repeat(string(rune('a'+i%26)), bytes/n-len(name)-len(": \r\n")))
	}
	return header
}

// echoPadding answers with the length of the body, and with the padding of the request.
func echoPadding(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	for name, values := range r.Header {
		if strings.HasPrefix(name, "X-Pad-") {
			w.Header()[name] = values
		}
	}
	fmt.Fprint(w, len(body))
}

func expectPadding(t *testing.T, got, want http.Header) {
	t.Helper()
	for name := range want {
		verify.Require(t, got.Get(name) == want.Get(name), "%s: got %d bytes, want %d", name, len(got.Get(name)), len(want.Get(name)))
	}
}

var (
	// largeHeads are limits above those that fit the usual buffers.
	largeHeads = Limits{HeadBytes: http1.MaxHeadBytes, Fields: 400}
	lowHeads   = Limits{HeadBytes: 1 << 10, Fields: 10}
)

// withHeads returns someTransport for heads of that size.
func withHeads(l Limits) upstream.Options {
	o := someTransport
	o.HeadBytes, o.Fields = l.HeadBytes, l.Fields
	return o
}

// Heads up to the limits pass in both directions, with HTTP/1 and HTTP/2 on each side. What
// is above gets 431, also if it fits the buffers.
func TestLimitsOfRequestHeads(t *testing.T) {
	t.Parallel()
	origin := startServer(t, echoPadding)
	for limits, tests := range map[Limits][]struct {
		fields, bytes, body int
		reason              string // of 431; "": 200
	}{
		lowHeads: {{2, 700, 10, ""}, {2, 1 << 10, 10, "head_too_long"}, {10, 500, 10, "too_many_fields"}},
		largeHeads: {
			{150, 15 << 10, 10, ""},
			{10, 17 << 10, 0, ""},
			{350, 55 << 10, 10 << 10, ""},
			{350, 55 << 10, 200 << 10, ""},
			{3, 1 << 10, 15 << 10, ""}, // in the same buffer
			{450, 20 << 10, 0, "too_many_fields"},
			{20, http1.MaxHeadBytes, 0, "head_too_long"},
		},
	} {
		for _, http2Peer := range []bool{false, true} {
			p := startProxy(t, Options{Limits: limits})
			p.usePeers(http2Peer, withHeads(largeHeads), balancer.Options{}, origin)
			fronts := p.fronts()[:3] // the last one is HTTP/2 as well
			if limits == lowHeads {
				fronts = fronts[:1] // others know it, and do not ask
			}
			for _, front := range fronts {
				for _, test := range tests {
					header := padding(test.fields, test.bytes)
					var lines []string
					for name := range header {
						lines = append(lines, name+": "+header.Get(name))
					}
					answer, body := front.ask(t, "POST", "/", strings.Repeat("x", test.body), lines...)
					what := fmt.Sprintf("%s, HTTP/2 to peers %v: %+v", front.name, http2Peer, test)
					verify.Equal(t, answer.Header.Get("X-Sluice-Reason"), test.reason, "%s: the reason", what)
					if test.reason != "" {
						verify.Equal(t, answer.StatusCode, 431, "%s: the status", what)
						continue
					}
					verify.That(t, answer.StatusCode == 200 && body == fmt.Sprint(test.body), "%s: status %d, %q", what, answer.StatusCode, body)
					expectPadding(t, answer.Header, header)
				}
			}
			p.expectNothingCounted()
		}
	}
}

// Requests on one connection with heads of any size do not disturb each other, also if they
// arrive together.
func TestLargeHeadsArePipelined(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Limits: largeHeads})
	p.usePeers(false, withHeads(largeHeads), balancer.Options{}, startServer(t, echoPadding))
	var all strings.Builder
	heads := []http.Header{padding(1, 100), padding(300, 50<<10), padding(2, 1<<10), padding(20, 18<<10), padding(1, 15<<10), padding(150, 30<<10)}
	for i, head := range heads {
		fmt.Fprintf(&all, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n", 1000*i)
		head.Write(&all)
		io.WriteString(&all, "\r\n"+strings.Repeat("x", 1000*i))
	}
	conn := p.dial()
	go io.WriteString(conn, all.String())
	reader := bufio.NewReader(conn)
	for i, head := range heads {
		answer, err := http.ReadResponse(reader, nil)
		verify.Require(t, err == nil, "response %d: %v", i+1, err)
		body, err := io.ReadAll(answer.Body)
		verify.That(t, err == nil && string(body) == fmt.Sprint(1000*i), "response %d: %q, %v", i+1, body, err)
		expectPadding(t, answer.Header, head)
	}
}

// A response head above the limits is no fault of the peer, since it may repeat the request.
func TestLimitsOfResponseHeads(t *testing.T) {
	t.Parallel()
	heads := map[string]http.Header{
		"/small": {}, "/medium": padding(2, 2<<10), "/usual": padding(50, 10<<10), "/long": padding(5, 17<<10), "/many": padding(101, 10<<10), "/both": padding(300, 50<<10),
		"/above": padding(20, http1.MaxHeadBytes), "/more": padding(401, 20<<10),
	}
	origin := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		for name, values := range heads[r.URL.Path] {
			w.Header()[name] = values
		}
		w.Header()["Date"] = nil
		io.WriteString(w, "ok")
	})
	for _, http2Peer := range []bool{false, true} {
		for limits, passing := range map[Limits]string{
			lowHeads: "/small", {HeadBytes: 16 << 10, Fields: http1.UsualFields}: "/small /medium /usual", largeHeads: "/small /medium /usual /long /many /both",
		} {
			p := startProxy(t, Options{})
			p.usePeers(http2Peer, withHeads(limits), balancer.Options{}, origin)
			front := p.fronts()[0]
			for path, head := range heads {
				answer, body := front.ask(t, "GET", path, "")
				what := fmt.Sprintf("%s, HTTP/2 to peers %v, limits %+v: status %d, %q", path, http2Peer, limits, answer.StatusCode, body)
				if slices.Contains(strings.Fields(passing), path) {
					verify.That(t, answer.StatusCode == 200 && body == "ok", "%s", what)
					expectPadding(t, answer.Header, head)
				} else {
					verify.That(t, answer.StatusCode == 502 && answer.Header.Get("X-Sluice-Reason") == "response_head_too_long", "%s", what)
				}
			}
			p.expectNothingCounted()
		}
	}
}

// The body of a response arrives also if its head fills the buffer exactly.
func TestResponseHeadFillsTheBuffer(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{socket.ResponseBufferBytes, http1.MaxHeadBytes} {
		origin := startOrigin(t, afterRequest(func(c *originConn) bool {
			const start, end = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: ", "\r\n\r\n"
			io.WriteString(c.Conn, start+strings.Repeat("x", limit-len(start)-len(end))+end)
			return c.write("ok")
		}))
		p := startProxy(t, Options{})
		options := transportOf(t)
		options.HeadBytes = units.Size(limit)
		p.usePeers(false, options, balancer.Options{}, origin.address())
		for range 3 {
			expectResponse(t, p.send(getRequest), 200, "ok")
		}
	}
}
