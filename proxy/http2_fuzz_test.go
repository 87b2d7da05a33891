package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/proxy/http2"
	"sluice/proxy/upstream"
	"sluice/test/verify"
)

// Whatever a client sends after the preface, the connection ends with it, nothing stays in flight,
// and a peer gets only what net/http takes for requests. If x/net reads the frames to their end,
// each whole request of a peer is one that x/net finds in them. The client gets frames that x/net
// takes for responses. TestReservedNames has the fields of requests.
func FuzzHTTP2(f *testing.F) {
	seed := func(write func(c *frameClient)) {
		var b bytes.Buffer
		c := &frameClient{Framer: xhttp2.NewFramer(&b, nil), t: f}
		c.encoder, c.AllowIllegalWrites = hpack.NewEncoder(&c.block), true
		c.WriteSettings()
		write(c)
		f.Add(b.Bytes())
	}
	seed(func(c *frameClient) { c.request(1, http2Get, true); c.request(3, http2Get+"|x=1", true) })
	seed(func(c *frameClient) {
		c.request(1, http2Post+"|content-length=4", false)
		c.WriteDataPadded(1, true, []byte("body"), make([]byte, 3))
	})
	seed(func(c *frameClient) {
		c.request(1, http2Post, false)
		c.WriteData(1, false, []byte("body"))
		c.WriteRSTStream(1, xhttp2.ErrCodeCancel)
		c.request(3, http2Post, false)
		c.WriteData(3, false, []byte("body"))
		c.request(3, "x=1", true)
	})
	seed(func(c *frameClient) {
		block := c.encode(http2Get)
		c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:3], EndStream: true})
		c.WriteContinuation(1, true, block[3:])
		c.WritePing(false, [8]byte{})
		c.WriteWindowUpdate(0, 100)
		c.WritePriority(5, xhttp2.PriorityParam{StreamDep: 1})
		c.WriteGoAway(0, xhttp2.ErrCodeNo, nil)
	})
	seed(func(c *frameClient) {
		c.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1})
		c.request(1, http2Get, true)
		c.WriteWindowUpdate(1, 1)
	})
	seed(func(c *frameClient) {
		c.request(1, http2WebSocket+"|sec-websocket-version=13", false)
		c.WriteData(1, false, []byte("body"))
		c.request(3, http2WebSocket, true)
		c.WriteData(1, true, nil)
		c.request(5, http2WebSocket, false)
		c.request(5, "x=1", true)
		c.request(7, strings.Replace(http2WebSocket, "websocket", "x", 1), false)
		c.request(9, http2WebSocket, false)
		c.WriteRSTStream(9, xhttp2.ErrCodeCancel)
	})

	seed(func(c *frameClient) {
		// Fields that end at sluice, or pose as its own.
		c.request(1, http2Get+"|te=trailers|cookie=a=1|x=2|cookie=|cookie=b=2|x=1|via=1.1 a|accept=a|accept=b|pragma=no-cache", true)
		c.request(3, http2Get+"|x-forwarded-for=6.6.6.6|x_forwarded_for=6.6.6.6|x-forwarded-proto=https|x-forwarded-host=evil|forwarded=for=6.6.6.6|"+
			"x-real-ip=6.6.6.6|x-sluice-attempts=9|proxy-authorization=a|http2-settings=b|x_y=1|x-forwarded-client-cert=a|x_forwarded_client-cert=a|max-forwards=7|host=a", true)
		c.request(5, strings.Replace(http2Get, "GET", "HEAD", 1)+"|te=trailers|host=a|x=", true)
		c.request(7, strings.Replace(http2Get, "GET", "OPTIONS", 1)+"|max-forwards=7|x-y=\xff", true)
		c.request(9, http2Post+"|expect=100-continue|trailer=x-t", false)
		c.request(9, "x-t=1|host=b|content-length=9|x-t=2|x_t=3|content-type=a|te=trailers|x-forwarded-for=6.6.6.6|set-cookie=a", true)
		c.request(11, http2Post+"|content-length=4|te=trailers", false)
		c.WriteData(11, false, []byte("body"))
		c.request(11, "x-t=1", true)
	})
	seed(func(c *frameClient) { // whole for a peer, without the end of the stream
		c.request(1, http2Post+"|content-length=0", false)
		c.request(3, http2Post+"|content-length=4", false)
		c.WriteData(3, false, []byte("body"))
		c.request(5, http2Post+"|content-length=0|te=trailers", false)
		c.WriteData(5, false, []byte("body"))
		c.WriteData(3, false, []byte("body"))
		c.request(7, http2Post+"|content-length=8", false)
		c.WriteData(7, true, []byte("123456789"))
		c.request(9, http2Post+"|content-length=8", false)
		c.WriteData(9, true, []byte("1234567"))
	})
	seed(func(c *frameClient) {
		grpc := http2Post + "|content-type=application/grpc+proto|te=trailers|grpc-timeout=10S|x_y=1|x_forwarded_client_cert=a"
		c.request(1, grpc, false)
		c.WriteData(1, true, []byte("\x00\x00\x00\x00\x01a"))
		c.request(3, grpc, false)
		c.WriteData(3, false, []byte("\x00\x00\x00\x00\x01a"))
		c.request(3, "x-t=1|x_t=1|grpc-status=0", true)
		c.request(5, grpc+"|content-type=text/plain", true)
		c.request(7, http2WebSocket+"|content-type=application/grpc|te=trailers|x_y=1|cookie=a|cookie=b", false)
	})

	var malformed atomic.Value // the error of a peer that got no valid request
	f.Add([]byte{})
	f.Add([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x01\x01\x00\x00\x00\x01\x82")) // without END_HEADERS

	var arrived sync.Map          // the whole requests that a peer got, as text
	sent := make(map[string]bool) // so far: a canceled request may arrive late
	origin := startOrigin(f, func(c *originConn) bool {
		r, err := readWitnessed(c.Reader, 2*oracleTrailerBytes)
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed):
			return false
		default:
			var broken *net.OpError
			if !errors.As(err, &broken) {
				malformed.Store(err.Error())
			}
			return false
		}
		if r.Header.Get("Expect") != "" {
			c.write("HTTP/1.1 100 Continue\r\n\r\n")
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return false
		}
		arrived.Store(requestText(r.Method, r.RequestURI, r.Host, string(body)), nil)
		if key := r.Header.Get("Sec-WebSocket-Key"); r.Header.Get("Upgrade") == "websocket" {
			io.WriteString(c.Conn, switching(key))
			io.Copy(c.Conn, c.Reader)
			return false
		}
		return c.write(answerWithTrailer)
	})
	leftovers := findLeftovers(f) // before the goroutines that take buffers
	p := startProxy(f, Options{}, origin.address())
	failures := uint64(0) // by earlier cases
	var mu sync.Mutex     // the cases of a plain test run may be parallel
	f.Fuzz(func(t *testing.T, input []byte) {
		defer leftovers.enter(t, p)()
		mu.Lock()
		defer mu.Unlock()
		p.t = t
		streams, whole := addRequests(sent, input)
		conn, err := net.Dial("tcp", p.address)
		verify.NoError(t, err)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, http2.Preface)
		conn.Write(input)
		var received bytes.Buffer
		if len(input)%4 > 0 {
			awaitAnswers(conn, &received, streams)
		}
		closeWrite(t, conn) // requests without an answer are dropped
		if _, err := io.Copy(&received, conn); errors.As(err, new(net.Error)) && err.(net.Error).Timeout() {
			t.Errorf("the connection does not end: %v", err)
		}
		conn.Close()
		checkResponses(t, received.Bytes())
		p.expectNothingLeft(t, 0)
		p.expectNoEntries(t, p.pool)
		if !whole { // what a peer gets of it arrives before the next case
			origin.catchUp(t, p)
		}
		for text := range arrived.Range {
			if arrived.Delete(text); !sent[text.(string)] && whole {
				t.Errorf("the peer got %q, which was not sent", text)
			}
		}
		if err := malformed.Swap(""); err != nil && err != "" {
			t.Errorf("the peer got a malformed request: %v", err)
		}
		peer := p.pool.Snapshot().All[0]
		verify.Equal(t, peer.Failures(), failures, "failures counted against the peer, of %v", peer.Outcomes())
		failures = peer.Failures()
	})
}

// catchUp waits until the origin has read all that the proxy has sent it.
func (o *origin) catchUp(t *testing.T, p *testProxy) {
	t.Helper()
	last := verify.Result(net.Dial("tcp", o.address())).Must(t)
	defer last.Close()
	eventually(t, "earlier connections are accepted", func() bool { return o.hasAccepted(last.LocalAddr()) })
	last.Close()
	transport := p.pool.Snapshot().All[0].Transport.(upstream.Connector)
	eventually(t, "the origin has only idle connections", func() bool {
		idle, busy := transport.Connections()
		return busy == 0 && o.open() == idle
	})
}

// requestText returns what identifies a request.
func requestText(method, target, host, body string) string {
	return fmt.Sprintf("%s %s of %s: %q", method, target, host, body)
}

// An http2Exchange is a request that x/net finds in frames.
type http2Exchange struct {
	method, target, host, body string
	length                     int // that is announced; -1: none
	complete                   bool
}

// text returns requestText of what a peer gets.
func (x *http2Exchange) text() string { return requestText(x.method, x.target, x.host, x.body) }

// newHTTP2Exchange returns the request with the head f, without its body.
func newHTTP2Exchange(f *xhttp2.MetaHeadersFrame) *http2Exchange {
	x := &http2Exchange{method: f.PseudoValue("method"), target: f.PseudoValue("path"), host: f.PseudoValue("authority"), length: -1}
	for _, field := range f.RegularFields() {
		switch n, err := strconv.Atoi(field.Value); {
		case field.Name == "host" && x.host == "":
			x.host = field.Value
		case field.Name == "content-length" && err == nil:
			x.length = n
		}
	}
	return x
}

// awaitAnswers reads until all complete requests have their answers, and no longer than
// some time: answers may wait for windows.
func awaitAnswers(conn net.Conn, received *bytes.Buffer, streams map[uint32]*http2Exchange) {
	const most = 50 * time.Millisecond
	waiting := 0
	for _, x := range streams {
		if x.complete {
			waiting++
		}
	}
	conn.SetReadDeadline(time.Now().Add(most))
	defer conn.SetReadDeadline(time.Now().Add(patience))
	framer := xhttp2.NewFramer(io.Discard, io.TeeReader(conn, received))
	for waiting > 0 {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		_, reset := frame.(*xhttp2.RSTStreamFrame)
		data, isData := frame.(*xhttp2.DataFrame)
		head, isHead := frame.(*xhttp2.HeadersFrame)
		if x := streams[frame.Header().StreamID]; x != nil && x.complete && (reset || isData && data.StreamEnded() || isHead && head.StreamEnded()) {
			waiting--
		}
	}
}

// addRequests adds the whole requests that x/net finds in frames, as peers must get them,
// and reports whether it read the frames to their end. streams are the requests whose heads
// it found.
func addRequests(to map[string]bool, frames []byte) (streams map[uint32]*http2Exchange, whole bool) {
	streams = make(map[uint32]*http2Exchange)
	framer := xhttp2.NewFramer(io.Discard, bytes.NewReader(frames))
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := framer.ReadFrame()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return streams, true
		case errors.As(err, new(xhttp2.StreamError)):
			continue
		case err != nil:
			return streams, false
		}
		id, ends := frame.Header().StreamID, false
		x := streams[id]
		switch f := frame.(type) {
		case *xhttp2.MetaHeadersFrame:
			ends = f.StreamEnded()
			if x != nil {
				break
			}
			x = newHTTP2Exchange(f)
			streams[id] = x
			if f.PseudoValue("protocol") != "" { // which HTTP/1.1 opens with GET
				x.method = "GET"
				to[x.text()] = true
			}
		case *xhttp2.DataFrame:
			if ends = f.StreamEnded(); x != nil {
				x.body += string(f.Data())
			}
		}
		if x == nil {
			continue
		}
		x.complete = x.complete || ends
		// A peer with HTTP/1.1 has the whole request when the body is as long as announced.
		if ends || x.length == len(x.body) {
			to[x.text()] = true
		}
	}
}

// checkResponses checks that the frames that a client got are responses, up to where the connection
// ended.
func checkResponses(t *testing.T, received []byte) {
	framer := xhttp2.NewFramer(io.Discard, bytes.NewReader(received))
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	begun, ended := make(map[uint32]bool), make(map[uint32]bool) // by stream, the final response
	for {
		frame, err := framer.ReadFrame()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return
		case err != nil:
			t.Errorf("the client got malformed frames: %v (%v)", err, framer.ErrorDetail())
			return
		}
		id := frame.Header().StreamID
		switch f := frame.(type) {
		case *xhttp2.MetaHeadersFrame:
			status := f.PseudoValue("status")
			verify.That(t, !ended[id] && (status != "") == !begun[id] && (status != "" || f.StreamEnded()), "stream %d: %v", id, f)
			begun[id] = begun[id] || !strings.HasPrefix(status, "1")
			ended[id] = f.StreamEnded()
		case *xhttp2.DataFrame:
			verify.That(t, begun[id] && !ended[id], "stream %d: %v", id, f)
			ended[id] = f.StreamEnded()
		}
	}
}

// answerWithTrailer is a response with fields that end at sluice, behind an interim one.
const answerWithTrailer = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nConnection: X-Gone\r\nX-Gone: 1\r\nX-First: 1\r\nTransfer-Encoding: chunked\r\nX-Answer: 1\r\n\r\n" +
	"1\r\no\r\n1;x\r\nk\r\n0\r\nX-T: 1\r\nContent-Length: 9\r\nX_T: 2\r\nGrpc-Status: 0\r\n\r\n"
