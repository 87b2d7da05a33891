package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/balancer"
	"sluice/proxy/http2"
)

// Whatever a client sends after the preface, the connection ends with it, nothing stays
// in flight, and a peer gets only what net/http takes for requests. If x/net reads the
// frames to their end, each whole request of a peer is one that x/net finds in them.
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

	var malformed atomic.Value // the error of a peer that got no valid request
	f.Add([]byte{})
	f.Add([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x01\x01\x00\x00\x00\x01\x82")) // without END_HEADERS

	var arrived sync.Map          // the whole requests that a peer got, as text
	sent := make(map[string]bool) // so far: a canceled request may arrive late
	unread := 0                   // the cases to come whose peers may get what x/net did not read
	origin := startOrigin(f, func(c *originConn) bool {
		r, err := http.ReadRequest(c.Reader)
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
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return false
		}
		arrived.Store(requestText(r.Method, r.RequestURI, r.Host, body), nil)
		if key := r.Header.Get("Sec-WebSocket-Key"); r.Header.Get("Upgrade") == "websocket" {
			io.WriteString(c.Conn, switching(key))
			io.Copy(c.Conn, c.Reader)
			return false
		}
		_, err = io.WriteString(c.Conn, okResponse)
		return err == nil
	})
	p := startProxy(f, Options{}, origin.address())
	var mu sync.Mutex // the cases of a plain test run may be parallel
	f.Fuzz(func(t *testing.T, input []byte) {
		mu.Lock()
		defer mu.Unlock()
		const late = 3
		if unread--; !addRequests(sent, input) {
			unread = late
		}
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, http2.Preface)
		conn.Write(input)
		closeWrite(t, conn)
		if _, err := io.Copy(io.Discard, conn); errors.As(err, new(net.Error)) && err.(net.Error).Timeout() {
			t.Errorf("the connection does not end: %v", err)
		}
		conn.Close()
		eventually(t, "the connection is closed", func() bool { return p.Connections() == 0 })
		eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
		for text := range arrived.Range {
			if arrived.Delete(text); !sent[text.(string)] && unread <= 0 {
				t.Errorf("the peer got %q, which was not sent", text)
			}
		}
		if err := malformed.Swap(""); err != nil && err != "" {
			t.Errorf("the peer got a malformed request: %v", err)
		}
		for _, peer := range p.pool.Snapshot().All {
			for class, n := range peer.Outcomes() {
				if class := balancer.OutcomeClass(class); n > 0 && class.Failure() {
					t.Errorf("%d times %q is counted against the peer", n, class)
				}
			}
		}
	})
}

// requestText returns what identifies a request.
func requestText(method, target, host string, body []byte) string {
	return method + " " + target + " " + host + "\n" + string(body)
}

// addRequests adds the whole requests that x/net finds in frames, and reports whether it
// read them to the end.
func addRequests(to map[string]bool, frames []byte) bool {
	type request struct {
		method, target, host string
		body                 []byte
	}
	open := make(map[uint32]*request)
	framer := xhttp2.NewFramer(io.Discard, bytes.NewReader(frames))
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := framer.ReadFrame()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return true
		case errors.As(err, new(xhttp2.StreamError)):
			continue
		case err != nil:
			return false
		}
		id, ends := frame.Header().StreamID, false
		r := open[id]
		switch f := frame.(type) {
		case *xhttp2.MetaHeadersFrame:
			if ends = f.StreamEnded(); r == nil {
				r = &request{method: f.PseudoValue("method"), target: f.PseudoValue("path"), host: f.PseudoValue("authority")}
				for _, field := range f.RegularFields() {
					if field.Name == "host" && r.host == "" {
						r.host = field.Value
					}
				}
				if f.PseudoValue("protocol") != "" { // a tunnel, which HTTP/1.1 opens with GET
					to[requestText("GET", r.target, r.host, nil)] = true
				}
				open[id] = r
			}
		case *xhttp2.DataFrame:
			if ends = f.StreamEnded(); r != nil {
				r.body = append(r.body, f.Data()...)
			}
		}
		if ends && r != nil {
			to[requestText(r.method, r.target, r.host, r.body)] = true
		}
	}
}
