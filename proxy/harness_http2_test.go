package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/proxy/http2"
	"sluice/test/verify"
)

// A frameClient is an HTTP/2 client that sends single frames, also wrong ones.
type frameClient struct {
	*xhttp2.Framer
	t       testing.TB
	conn    net.Conn
	encoder *hpack.Encoder
	block   bytes.Buffer
}

// dialFrames opens a connection and exchanges SETTINGS.
func (p *testProxy) dialFrames(settings ...xhttp2.Setting) *frameClient {
	p.t.Helper()
	return framesOn(p.t, p.stream(), settings...)
}

// framesOn is dialFrames on a new connection.
func framesOn(t testing.TB, conn net.Conn, settings ...xhttp2.Setting) *frameClient {
	c := &frameClient{Framer: xhttp2.NewFramer(conn, conn), t: t, conn: conn}
	c.encoder = hpack.NewEncoder(&c.block)
	c.AllowIllegalWrites = true
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	io.WriteString(conn, http2.Preface)
	c.WriteSettings(settings...)
	return c
}

// encode encodes "name=value" fields that are separated by "|".
func (c *frameClient) encode(fields string) []byte {
	c.block.Reset()
	for field := range strings.SplitSeq(fields, "|") {
		i := strings.Index(field[1:], "=") + 1
		c.encoder.WriteField(hpack.HeaderField{Name: field[:i], Value: field[i+1:]})
	}
	return c.block.Bytes()
}

const (
	http2Get  = ":method=GET|:scheme=http|:authority=a|:path=/"
	http2Post = ":method=POST|:scheme=http|:authority=a|:path=/"
)

// request opens a stream.
func (c *frameClient) request(id uint32, fields string, ends bool) error {
	return c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: c.encode(fields), EndHeaders: true, EndStream: ends})
}

// read returns the next frame that is not SETTINGS or WINDOW_UPDATE, or nil at the end
// of the connection. Each frame has its own time to arrive: a test may read a thousand.
func (c *frameClient) read() xhttp2.Frame {
	c.t.Helper()
	for {
		c.conn.SetDeadline(time.Now().Add(patience))
		frame, err := c.ReadFrame()
		if err != nil {
			if errors.Is(err, io.EOF) || strings.Contains(err.Error(), "connection reset") || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			c.t.Fatalf("read a frame: %v", err)
		}
		switch frame.(type) {
		case *xhttp2.SettingsFrame, *xhttp2.WindowUpdateFrame:
		default:
			return frame
		}
	}
}

// next is read where the connection does not end.
func (c *frameClient) next() xhttp2.Frame {
	c.t.Helper()
	frame := c.read()
	verify.Require(c.t, frame != nil, "the connection has ended")
	return frame
}

// An http2Response is what a client gets on a stream.
type http2Response struct {
	interim []string // status codes
	status  string
	header  map[string]string
	body    string
	trailer map[string]string
	reset   xhttp2.ErrCode
	ended   bool // by END_STREAM
}

// response reads frames until the end of the stream, and answers PING.
func (c *frameClient) response(id uint32) (r http2Response) {
	c.t.Helper()
	for {
		switch f := c.read().(type) {
		case nil:
			c.t.Fatalf("the connection ended in stream %d: %+v", id, r)
		case *xhttp2.MetaHeadersFrame:
			verify.Require(c.t, f.StreamID == id, "got %v", f)
			fields := make(map[string]string)
			for _, field := range f.RegularFields() {
				fields[field.Name] = strings.Trim(fields[field.Name]+", "+field.Value, ", ")
			}
			switch status := f.PseudoValue("status"); {
			case status == "":
				r.trailer = fields
			case status[0] == '1':
				r.interim = append(r.interim, status)
			default:
				r.status, r.header = status, fields
			}
			if r.ended = f.StreamEnded(); r.ended {
				return r
			}
		case *xhttp2.DataFrame:
			verify.Require(c.t, f.StreamID == id, "got %v", f)
			r.body += string(f.Data())
			if r.ended = f.StreamEnded(); r.ended {
				return r
			}
		case *xhttp2.RSTStreamFrame:
			if f.StreamID == id {
				r.reset = f.ErrCode
				return r
			}
		case *xhttp2.PingFrame:
			c.WritePing(true, f.Data)
		case *xhttp2.GoAwayFrame:
			verify.Require(c.t, f.ErrCode == xhttp2.ErrCodeNo, "got %v", f)
		}
	}
}

// ask sends a request without a body, and returns the response.
func (c *frameClient) ask(id uint32, fields string) http2Response {
	c.t.Helper()
	c.request(id, fields, true)
	return c.response(id)
}

// expectReset checks that the next frame resets a stream with this code.
func (c *frameClient) expectReset(id uint32, code xhttp2.ErrCode) {
	c.t.Helper()
	f, ok := c.read().(*xhttp2.RSTStreamFrame)
	verify.That(c.t, ok && f.StreamID == id && f.ErrCode == code, "got %v, want the reset of stream %d with %v", f, id, code)
}

// expectEnd reads until the connection ends, answers PING, and checks the code of the last GOAWAY.
func (c *frameClient) expectEnd(code xhttp2.ErrCode) {
	c.t.Helper()
	got, found := xhttp2.ErrCodeNo, false
	for frame := c.read(); frame != nil; frame = c.read() {
		switch f := frame.(type) {
		case *xhttp2.GoAwayFrame:
			got, found = f.ErrCode, true
		case *xhttp2.PingFrame:
			if !f.IsAck() {
				c.WritePing(true, f.Data)
			}
		}
	}
	verify.That(c.t, found && got == code, "the connection ended with %v (GOAWAY: %v), want %v", got, found, code)
}

// expectAlive checks that the connection still serves requests.
func (c *frameClient) expectAlive(id uint32) {
	c.t.Helper()
	r := c.ask(id, http2Get)
	verify.That(c.t, r.status != "", "got %+v", r)
}

// http2GetOf returns the fields of a GET request.
func http2GetOf(path string) string {
	return ":method=GET|:scheme=http|:authority=a|:path=" + path
}

// drain reads n bytes of bodies.
func (c *frameClient) drain(n int) {
	c.t.Helper()
	for n > 0 {
		if f, ok := c.next().(*xhttp2.DataFrame); ok {
			n -= len(f.Data())
		}
	}
}

// expectAnswered sends PING and reads until its answer, the frames before which it
// passes to check.
func (c *frameClient) expectAnswered(check func(xhttp2.Frame)) {
	c.t.Helper()
	c.WritePing(false, [8]byte{1})
	for {
		frame := c.next()
		if ping, ok := frame.(*xhttp2.PingFrame); !ok {
			check(frame)
		} else if ping.IsAck() {
			return
		}
	}
}

// framesOf returns the frames that do writes.
func (c *frameClient) framesOf(do func()) []byte {
	framer := c.Framer
	defer func() { c.Framer = framer }()
	var b bytes.Buffer
	c.Framer = xhttp2.NewFramer(&b, nil)
	do()
	return b.Bytes()
}

// awaitGoAway reads the announcement of the end, which names no last stream, and returns the PING
// that comes with it.
func (c *frameClient) awaitGoAway() (ping [8]byte) {
	c.t.Helper()
	for {
		switch f := c.next().(type) {
		case *xhttp2.GoAwayFrame:
			verify.Equal(c.t, f.LastStreamID, http2.MaxWindow, "the last stream of the announcement")
		case *xhttp2.PingFrame:
			return f.Data
		}
	}
}

// servedLast reads until the connection ends, and answers PING. The error: not all of these streams
// are served, or the last GOAWAY does not name the last one.
func (c *frameClient) servedLast(ids ...uint32) error {
	c.t.Helper()
	ended, last := make(map[uint32]bool), uint32(0)
	for frame := c.read(); frame != nil; frame = c.read() {
		switch f := frame.(type) {
		case *xhttp2.DataFrame:
			ended[f.StreamID] = ended[f.StreamID] || f.StreamEnded()
		case *xhttp2.PingFrame:
			c.WritePing(true, f.Data)
		case *xhttp2.GoAwayFrame:
			if last = f.LastStreamID; f.ErrCode != xhttp2.ErrCodeNo {
				return fmt.Errorf("got %v", f)
			}
		}
	}
	for _, id := range ids {
		if !ended[id] {
			return fmt.Errorf("the stream %d was not served: %v", id, ended)
		}
	}
	if want := ids[len(ids)-1]; last != want {
		return fmt.Errorf("the last stream is %d, want %d", last, want)
	}
	return nil
}

// openTunnel opens a tunnel to an echoingWebSocket and reads its greeting.
func (c *frameClient) openTunnel(id uint32) {
	c.t.Helper()
	c.request(id, http2WebSocket, false)
	f, ok := c.read().(*xhttp2.MetaHeadersFrame)
	verify.Require(c.t, ok && f.StreamID == id && f.PseudoValue("status") == "200" && !f.StreamEnded(), "got %v", f)
	c.expectBytes(id, "hello ")
}

// expectBytes reads DATA frames until they have brought want.
func (c *frameClient) expectBytes(id uint32, want string) {
	c.t.Helper()
	for got := ""; got != want; {
		f, ok := c.read().(*xhttp2.DataFrame)
		verify.Require(c.t, ok && f.StreamID == id, "got %v after %q, want %q", f, got, want)
		if got += string(f.Data()); !strings.HasPrefix(want, got) || f.StreamEnded() {
			c.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// A framePeer is a connection of a peer that speaks HTTP/2 frame by frame.
type framePeer struct {
	*xhttp2.Framer
	net.Conn
	block bytes.Buffer
	hpack *hpack.Encoder
}

// framePeerOptions are what a framePeer does beside answering.
type framePeerOptions struct {
	settings []xhttp2.Setting
	tls      *tls.Config                            // nil: without TLS
	accept   func() bool                            // whether to serve a connection; nil: yes
	mute     func() bool                            // whether PINGs get no answer; nil: they get one
	frame    func(p *framePeer, frame xhttp2.Frame) // gets every frame, if not nil
	answer   func(p *framePeer, stream uint32)      // for the HEADERS of each request
}

// startFramePeer calls answer for the HEADERS of each request.
func startFramePeer(t *testing.T, answer func(p *framePeer, stream uint32)) (address string) {
	t.Helper()
	return startFramePeerWith(t, framePeerOptions{answer: answer})
}

// startFramePeerWith is startFramePeer with more options.
func startFramePeerWith(t *testing.T, o framePeerOptions) (address string) {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	go acceptAll(l, func(conn net.Conn) {
		if o.accept != nil && !o.accept() {
			conn.Close()
			return
		}
		if o.tls != nil {
			conn = tls.Server(conn, o.tls)
		}
		serveFrames(conn, o)
	})
	return l.Addr().String()
}

// acceptAll calls serve for each connection, each in a goroutine of its own. It returns when l is
// closed and all of them have ended.
func acceptAll(l net.Listener, serve func(net.Conn)) {
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		serving.Go(func() { serve(conn) })
	}
}

func serveFrames(conn net.Conn, o framePeerOptions) {
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, len(http2.Preface))); err != nil {
		return
	}
	p := &framePeer{Framer: xhttp2.NewFramer(conn, conn), Conn: conn}
	p.hpack = hpack.NewEncoder(&p.block)
	p.WriteSettings(o.settings...)
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			return
		}
		if o.frame != nil {
			o.frame(p, frame)
		}
		switch frame := frame.(type) {
		case *xhttp2.HeadersFrame:
			o.answer(p, frame.StreamID)
		case *xhttp2.SettingsFrame:
			if !frame.IsAck() {
				p.WriteSettingsAck()
			}
		case *xhttp2.PingFrame:
			if o.mute == nil || !o.mute() {
				p.WritePing(true, frame.Data)
			}
		}
	}
}

// encode sets block to the field block of pairs of names and values.
func (p *framePeer) encode(fields ...string) {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
}

// headers sends HEADERS with pairs of names and values.
func (p *framePeer) headers(stream uint32, ends bool, fields ...string) {
	p.encode(fields...)
	p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: stream, BlockFragment: p.block.Bytes(), EndStream: ends, EndHeaders: true})
}

// longHeaders is headers in frames of that many bytes.
func (p *framePeer) longHeaders(stream uint32, bytes int, fields ...string) {
	p.encode(fields...)
	for first := true; p.block.Len() > 0; first = false {
		part := p.block.Next(bytes)
		if first {
			p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: stream, BlockFragment: part, EndStream: true})
		} else {
			p.WriteContinuation(stream, p.block.Len() == 0, part)
		}
	}
}

// frames returns the bytes that write writes as frames of HTTP/2.
func frames(write func(p *framePeer)) []byte {
	var b bytes.Buffer
	p := &framePeer{Framer: xhttp2.NewFramer(&b, nil)}
	p.AllowIllegalWrites = true
	p.hpack = hpack.NewEncoder(&p.block)
	write(p)
	return b.Bytes()
}
