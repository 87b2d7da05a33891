package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
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
