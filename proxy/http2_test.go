package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/proxy/http2"
	"sluice/route"
	"sluice/test/verify"
)

// http2Client returns a client that uses only HTTP/2, without TLS.
func http2Client(t testing.TB) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func TestHTTP2Forwards(t *testing.T) {
	t.Parallel()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		verify.That(t, err == nil, "body: %v", err)
		w.Header().Set("X-Via", r.Header.Get("Via"))
		fmt.Fprintf(w, "%s %s %d %s", r.Method, r.URL, len(body), r.Host)
		io.WriteString(w, strings.Repeat("y", len(body)))
	}))
	defer origin.Close()
	p := startProxy(t, Options{}, strings.TrimPrefix(origin.URL, "http://"))
	client := http2Client(t)
	var wg sync.WaitGroup
	for i, size := range []int{0, 1, 100, 15 << 10, 17 << 10, 100 << 10, 1 << 20, 5 << 20} {
		for _, chunked := range []bool{false, true} {
			wg.Go(func() {
				var body io.Reader = strings.NewReader(strings.Repeat("x", size))
				if chunked {
					body = io.MultiReader(body)
				}
				r, err := client.Post(fmt.Sprintf("http://%s/p/%d?q", p.address, i), "text/plain", body)
				if err != nil {
					t.Errorf("size %d chunked %v: %v", size, chunked, err)
					return
				}
				got, err := io.ReadAll(r.Body)
				r.Body.Close()
				want := fmt.Sprintf("POST /p/%d?q %d %s", i, size, p.address) + strings.Repeat("y", size)
				verify.That(t, err == nil && string(got) == want && r.Proto == "HTTP/2.0" && r.Header.Get("X-Via") == "2.0 sluice",
					"size %d chunked %v: got %d bytes, %v, %s, %q, want %d", size, chunked, len(got), err, r.Proto, r.Header, len(want))
			})
		}
	}
	wg.Wait()
	verify.Equal(t, p.Connections(), 1, "connections")
}

// Requests arrive at an HTTP/1.1 peer as one of HTTP/1.1 would.
func TestHTTP2RequestAsSent(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		fields, body, want string
	}{
		{http2Get, "", "GET / HTTP/1.1\r\nhost: a\r\n@\r\n"},
		{http2Get + "|host=a|x=1|cookie=a=1|cookie=b=2|x_y=3", "", "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\ncookie: a=1; b=2\r\n@\r\n"},
		{http2Get + "|te=trailers", "", "GET / HTTP/1.1\r\nhost: a\r\nTE: trailers\r\nConnection: TE\r\n@\r\n"},
		{http2Post, "", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n@\r\n"},
		{http2Post + "|content-length=4", "body", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n@\r\nbody"},
		{http2Post, "body", "POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n@\r\n4\r\nbody\r\n0\r\n\r\n"},
	} {
		origin := startOrigin(t, answering(okResponse))
		p := startProxy(t, Options{}, origin.address())
		c := p.dialFrames()
		c.request(1, test.fields, test.body == "")
		if test.body != "" {
			c.WriteData(1, true, []byte(test.body))
		}
		r := c.response(1)
		verify.That(t, r.status == "200" && r.body == "ok" && r.ended, "%q: got %+v", test.fields, r)
		forwarded := "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-Host: a\r\nX-Forwarded-Proto: http\r\nVia: 2.0 sluice\r\n"
		got, want := origin.got(), strings.Replace(test.want, "@", forwarded, 1)
		if test.body != "" && strings.Contains(want, "chunked") { // chunks may be divided
			verify.That(t, strings.HasPrefix(got, want[:strings.Index(want, "\r\n\r\n")]) && strings.HasSuffix(got, "0\r\n\r\n"), "%q: the peer got %q, want %q", test.fields, got, want)
		} else if got != want {
			t.Errorf("%q: the peer got %q, want %q", test.fields, got, want)
		}
	}
}

// What would be another request in HTTP/1.1 reaches no peer. [sluice/proxy/http2] and [sluice/proxy/http1] have
// the tables of what is refused.
func TestHTTP2Smuggling(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	c := p.dialFrames()
	id := uint32(1)
	for _, test := range []struct {
		fields, status string // empty: the stream is reset
	}{
		{fields: http2Get + "|x=1\r\nhost: b"},
		{http2Get + "|host=b", "400"},
		{":method=CONNECT|:authority=a:1", "405"},
		{http2Get + strings.Repeat("|x=1", 101), "431"},
		{http2Get + strings.Repeat("|x="+strings.Repeat("v", 3900), 5), "431"},
	} {
		c.request(id, test.fields, true)
		r := c.response(id)
		verify.That(t, r.status == test.status && (r.status != "" || r.reset == xhttp2.ErrCodeProtocol), "%.100q: got %+v", test.fields, r)
		id += 2
	}
	verify.Equal(t, origin.got(), "", "the peer's request")
	c.expectAlive(id)
}

// A body that is not as long as announced is not completed at the peer.
func TestHTTP2WrongLength(t *testing.T) {
	t.Parallel()
	bodies := make(chan error, 4)
	origin := startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
		c.write("HTTP/1.1 100 Continue\r\n\r\n")
		_, err := io.Copy(io.Discard, r.Body)
		bodies <- err
		return false
	}))
	p := startProxy(t, Options{}, origin.address())
	c := p.dialFrames()
	for i, body := range []string{"1234567", "123456789"} {
		id := uint32(2*i + 1)
		c.request(id, http2Post+"|content-length=8|expect=100-continue", false)
		// A request that is reset before it has a peer reaches none.
		eventually(t, "the head is at the peer", func() bool { return strings.Count(origin.got(), "\r\n\r\n") == i+1 })
		c.WriteData(id, true, []byte(body))
		r := c.response(id)
		verify.That(t, r.reset == xhttp2.ErrCodeProtocol, "%d bytes: got %+v", len(body), r)
	}
	eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
	for range 2 {
		verify.That(t, <-bodies != nil, "the peer got a complete body")
	}
	p.expectNothingCounted()
}

// Interim responses, trailers in both directions, and fields that HTTP/2 does not have.
func TestHTTP2InterimResponsesAndTrailers(t *testing.T) {
	t.Parallel()
	trailers := make(chan http.Header, 2)
	origin := startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
		c.write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
		io.Copy(io.Discard, r.Body)
		trailers <- r.Trailer
		return c.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nTrailer: Grpc-Status\r\nX-Up: 1\r\n\r\n" +
			"2\r\nok\r\n0\r\nGrpc-Status: 0\r\nContent-Length: 5\r\n\r\n")
	}))
	p := startProxy(t, Options{}, origin.address())
	c := p.dialFrames()
	for i, te := range []string{"|te=trailers", ""} {
		id := uint32(2*i + 1)
		c.request(id, http2Post+"|expect=100-continue"+te, false)
		c.WriteData(id, false, []byte("body"))
		c.request(id, "x-checksum=1", true)
		r := c.response(id)
		verify.Equal(t, strings.Join(r.interim, " "), "100 103", "interim responses")
		verify.That(t, r.status == "200" && r.body == "ok" && r.header["x-up"] == "1" && r.header["x-hop"] == "" && r.header["keep-alive"] == "" && r.header["connection"] == "", "got %+v", r)
		want := map[string]string(nil)
		if te != "" {
			want = map[string]string{"grpc-status": "0"}
		}
		verify.DeepEqual(t, r.trailer, want, "te %q: trailer", te)
		verify.Equal(t, (<-trailers).Get("X-Checksum"), "1", "the peer's trailer")
	}
}

// A client that cancels a request ends it at the peer, and no peer is blamed.
func TestHTTP2ClientCancels(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, response string }{
		{"before the response", ""},
		{"in the response", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome"},
	} {
		t.Run(test.name, func(t *testing.T) {
			arrived, ended := make(chan struct{}), make(chan struct{})
			origin := startOrigin(t, func(c *originConn) bool {
				if c.number > 1 {
					return answering(okResponse)(c)
				}
				http.ReadRequest(c.Reader)
				io.WriteString(c.Conn, test.response)
				close(arrived)
				io.Copy(io.Discard, c.Conn)
				close(ended)
				return false
			})
			p := startProxy(t, Options{}, origin.address())
			c := p.dialFrames()
			c.request(1, http2Get, true)
			<-arrived
			c.WriteRSTStream(1, xhttp2.ErrCodeCancel)
			<-ended
			eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
			p.expectNothingCounted()
			c.WriteWindowUpdate(1, 5) // on its way when the stream ended
			c.expectAnswered(func(xhttp2.Frame) {})
		})
	}
}

// So does one whose peer takes no more of the body, long before the end of the pause that a peer may make.
func TestHTTP2ClientCancelsWhatThePeerDoesNotTake(t *testing.T) {
	t.Parallel()
	taken, reset := make(chan struct{}), make(chan struct{})
	p := startProxyToH2C(t, startFramePeerWith(t, framePeerOptions{
		settings: []xhttp2.Setting{{ID: xhttp2.SettingInitialWindowSize, Val: 4}},
		answer:   func(*framePeer, uint32) {},
		frame: func(_ *framePeer, frame xhttp2.Frame) {
			switch frame.(type) {
			case *xhttp2.DataFrame:
				close(taken)
			case *xhttp2.RSTStreamFrame:
				close(reset)
			}
		},
	}))
	timeouts := patientTimeouts()
	timeouts.Idle = time.Hour
	p.setService(route.Service{Timeouts: timeouts, Retry: route.Retry{Attempts: 1}})
	c := p.dialFrames()
	c.request(1, http2Post, false)
	c.WriteData(1, false, []byte("somebody"))
	<-taken
	c.WriteRSTStream(1, xhttp2.ErrCodeCancel)
	eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
	<-reset
	p.expectNothingCounted()
}

// An answer of sluice's own, to a request whose body is not read.
func TestHTTP2Refusals(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Limits: Limits{BodyBytes: 10}, Timeouts: Timeouts{Body: 200 * time.Millisecond}})
	c := p.dialFrames()
	c.request(1, http2Post+"|content-length=1000", false)
	r := c.response(1)
	verify.That(t, r.status == "413" && r.header["x-sluice-reason"] == "body_too_long" && r.header["connection"] == "" && strings.HasPrefix(r.body, "413 "), "got %+v", r)
	c.expectReset(1, xhttp2.ErrCodeNo)
	c.WriteData(1, false, make([]byte, 100)) // on its way
	c.request(1, "x=1", true)
	c.request(3, http2Post+"|content-length=5", false)
	r = c.response(3)
	verify.That(t, r.status == "408" && r.header["x-sluice-reason"] == "body_timeout", "got %+v", r)
	c.read() // RST_STREAM
	c.request(5, ":method=HEAD|:scheme=http|:authority=a|:path=/", true)
	r = c.response(5)
	verify.That(t, r.status == "503" && r.body == "" && r.ended, "got %+v", r)
}

// Shutdown loses no request: those that were sent before the client knew are served.
func TestHTTP2Shutdown(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	origin := startOrigin(t, afterRequest(func(c *originConn) bool {
		<-proceed
		return c.write(okResponse)
	}))
	p := newUnmanagedProxy(t, Options{}, origin.address())
	c, idle := p.dialFrames(), p.dialFrames()
	c.request(1, http2Get, true)
	eventually(t, "the request is in flight", func() bool { return p.inflight() == 1 })
	ended := make(chan error, 1)
	go func() { ended <- p.Shutdown(context.Background(), 0) }()

	f, ok := c.read().(*xhttp2.GoAwayFrame)
	verify.Require(t, ok && f.LastStreamID == http2.MaxWindow && f.ErrCode == xhttp2.ErrCodeNo, "got %v", f)
	c.request(3, http2Get, true) // before the client has answered
	ping, ok := c.read().(*xhttp2.PingFrame)
	verify.Require(t, ok, "got %v", ping)
	c.WritePing(true, ping.Data)
	f, ok = c.read().(*xhttp2.GoAwayFrame)
	verify.Require(t, ok && f.LastStreamID == 3 && f.ErrCode == xhttp2.ErrCodeNo, "got %v", f)
	c.request(5, http2Post, false) // on its way
	c.WriteData(5, false, []byte("body"))
	c.WriteWindowUpdate(5, 1)
	c.WriteRSTStream(5, xhttp2.ErrCodeCancel)
	c.expectAnswered(func(xhttp2.Frame) {})
	close(proceed)
	answers := make(map[uint32]string)
	for frame := c.read(); frame != nil; frame = c.read() {
		if f, ok := frame.(*xhttp2.DataFrame); ok && f.StreamEnded() {
			answers[f.StreamID] = string(f.Data())
		}
	}
	verify.That(t, len(answers) == 2 && answers[1] == "ok" && answers[3] == "ok", "got %v", answers)
	for frame := idle.read(); frame != nil; frame = idle.read() {
		if f, ok := frame.(*xhttp2.PingFrame); ok {
			idle.WritePing(true, f.Data)
		}
	}
	verify.Succeeds(t, <-ended)
	p.pool.Close()
}

// An idle connection has no goroutine, and serves again; its end is announced.
func TestHTTP2IdleConnection(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	const idle = time.Hour
	p := startProxy(t, Options{Timeouts: Timeouts{Idle: idle}}, origin.address())
	c := p.dialFrames()
	for id := uint32(1); id < 7; id += 2 {
		c.expectAlive(id)
		eventually(t, "the connection is idle", func() bool { return !hasIdleSet || p.idleConnCount() == 1 })
	}
	p.skip(idle)
	c.WritePing(true, c.awaitGoAway())
	c.expectEnd(xhttp2.ErrCodeNo)
}
