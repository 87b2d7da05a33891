package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/quic-go/qpack"
	"golang.org/x/net/quic"

	own "sluice/proxy/http3"
	"sluice/test/verify"
)

// An http3Frames is a connection of an HTTP/3 client that sends single frames, also wrong ones. Its
// QUIC is another implementation than that of sluice.
type http3Frames struct {
	t       testing.TB
	conn    *quic.Conn
	control *quic.Stream // nil: it was not opened
	close   func()       // ends the connection
}

// quicClient is the configuration of clients that wait for ever.
func quicClient() *quic.Config {
	return &quic.Config{
		TLSConfig:        &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}, MinVersion: tls.VersionTLS13},
		HandshakeTimeout: patience, MaxIdleTimeout: patience,
	}
}

// dialQUIC opens a connection from a loopback address, without a control stream.
func dialQUIC(t testing.TB, from, to string, config *quic.Config) (*http3Frames, error) {
	t.Helper()
	return dialQUICOn(t, verify.Result(net.ListenPacket("udp", from+":0")).Must(t), to, config)
}

// dialQUICOn is dialQUIC on a socket.
func dialQUICOn(t testing.TB, socket net.PacketConn, to string, config *quic.Config) (*http3Frames, error) {
	t.Helper()
	endpoint := verify.Result(quic.NewEndpoint(socket, nil)).Must(t)
	end := func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		endpoint.Close(ended)
	}
	t.Cleanup(end)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := endpoint.Dial(ctx, "udp", to, config)
	if err != nil {
		return nil, err
	}
	return &http3Frames{t: t, conn: conn, close: end}, nil
}

// dialBareHTTP3 opens a connection without a control stream.
func dialBareHTTP3(t testing.TB, to string) *http3Frames {
	t.Helper()
	return verify.Result(dialQUIC(t, "127.0.0.1", to, quicClient())).Must(t)
}

// dialHTTP3 opens a connection, and sends empty SETTINGS.
func dialHTTP3(t testing.TB, to string) *http3Frames {
	t.Helper()
	c := dialBareHTTP3(t, to)
	c.control = c.openUni([]byte{0}, h3Frame(4, nil))
	return c
}

// wait returns a context that ends with the patience of the test.
func (c *http3Frames) wait() context.Context {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	c.t.Cleanup(cancel)
	return ctx
}

// openUni opens a unidirectional stream, and sends parts on it.
func (c *http3Frames) openUni(parts ...[]byte) *quic.Stream {
	c.t.Helper()
	s := verify.Result(c.conn.NewSendOnlyStream(c.wait())).Must(c.t)
	s.SetWriteContext(c.wait())
	for _, part := range parts {
		s.Write(part)
	}
	s.Flush()
	return s
}

// An http3Request is a stream of a request.
type http3Request struct {
	*quic.Stream
	t  testing.TB
	in *bufio.Reader
}

// open opens a stream, and sends parts on it, each in a packet of its own.
func (c *http3Frames) open(parts ...[]byte) *http3Request {
	c.t.Helper()
	return verify.Result(c.tryOpen(parts...)).Must(c.t)
}

// tryOpen is open on a connection that may have ended.
func (c *http3Frames) tryOpen(parts ...[]byte) (*http3Request, error) {
	s, err := c.conn.NewStream(c.wait())
	if err != nil {
		return nil, err
	}
	s.SetReadContext(c.wait())
	s.SetWriteContext(c.wait())
	r := &http3Request{s, c.t, bufio.NewReader(s)}
	r.send(parts...)
	return r, nil
}

// send sends parts as far as the server takes them.
func (r *http3Request) send(parts ...[]byte) {
	for _, part := range parts {
		r.Write(part)
		r.Flush()
	}
}

// request opens a stream with a head.
func (c *http3Frames) request(fields string, ends bool) *http3Request {
	c.t.Helper()
	r := c.open()
	r.Write(h3Head(fields))
	if ends {
		r.CloseWrite()
	} else {
		r.Flush()
	}
	return r
}

// ask sends a request without a body, and returns the response.
func (c *http3Frames) ask(fields string) http3Response {
	c.t.Helper()
	return c.request(fields, true).response()
}

// expectAlive checks that the connection still serves requests.
func (c *http3Frames) expectAlive() {
	c.t.Helper()
	r := c.ask(http3Get)
	verify.That(c.t, r.status != "", "got %+v", r)
}

// expectEnd waits until the server has ended the connection, and checks the code.
func (c *http3Frames) expectEnd(code own.ErrorCode) {
	c.t.Helper()
	err := c.conn.Wait(c.wait())
	var closed *quic.ConnectionCloseError
	verify.That(c.t, errors.As(err, &closed) && closed.Code == uint64(code), "the connection ended with %v, want %#x", err, uint64(code))
}

// serverFrames returns the server's control stream behind its type.
func (c *http3Frames) serverFrames() *bufio.Reader {
	c.t.Helper()
	s := verify.Result(c.conn.AcceptStream(c.wait())).Must(c.t)
	s.SetReadContext(c.wait())
	in := bufio.NewReader(s)
	verify.Equal(c.t, verify.Result(h3ReadInt(in)).Must(c.t), uint64(0), "the type of the first stream")
	return in
}

// readGoAway reads frames up to a GOAWAY, and returns its id.
func (c *http3Frames) readGoAway(control *bufio.Reader) uint64 {
	c.t.Helper()
	for {
		frame, payload, err := h3ReadFrame(control)
		verify.Require(c.t, err == nil, "no GOAWAY: %v", err)
		if frame == 7 {
			return verify.Result(h3ReadInt(bufio.NewReader(bytes.NewReader(payload)))).Must(c.t)
		}
	}
}

// An http3Response is what a client gets on a stream.
type http3Response struct {
	interim []string // status codes
	status  string
	header  map[string]string
	body    string
	trailer map[string]string
	reset   own.ErrorCode // 0: the stream was not reset
	ended   bool
	err     error // the connection has ended
}

// response reads frames until the end of the stream.
func (r *http3Request) response() (a http3Response) {
	r.t.Helper()
	for {
		frame, payload, err := h3ReadFrame(r.in)
		var reset quic.StreamError
		switch {
		case err == io.EOF:
			a.ended = true
			return a
		case errors.As(err, &reset):
			a.reset = own.ErrorCode(reset)
			return a
		case err != nil:
			verify.That(r.t, !errors.Is(err, context.DeadlineExceeded), "no end of stream %d: %+v", r.ID(), a)
			a.err = err
			return a
		case frame == 0:
			a.body += string(payload)
		case frame == 1:
			r.head(&a, payload)
		}
	}
}

// next reads the next frame, and returns the payload of one of this type.
func (r *http3Request) next(frame uint64) []byte {
	r.t.Helper()
	got, payload, err := h3ReadFrame(r.in)
	verify.Require(r.t, err == nil && got == frame, "got a frame %#x, %v, want %#x", got, err, frame)
	return payload
}

// nextHead reads the next frame, which is HEADERS.
func (r *http3Request) nextHead() (a http3Response) {
	r.t.Helper()
	r.head(&a, r.next(1))
	return a
}

// head adds a field section.
func (r *http3Request) head(a *http3Response, section []byte) {
	r.t.Helper()
	status, fields := "", make(map[string]string)
	for decode := qpack.NewDecoder().Decode(section); ; {
		f, err := decode()
		if err == io.EOF {
			break
		}
		verify.Require(r.t, err == nil, "a field section: %v", err)
		if f.Name == ":status" {
			status = f.Value
		} else {
			fields[f.Name] = strings.Trim(fields[f.Name]+", "+f.Value, ", ")
		}
	}
	switch {
	case status == "":
		a.trailer = fields
	case status[0] == '1':
		a.interim = append(a.interim, status)
	default:
		a.status, a.header = status, fields
	}
}

const (
	http3Get  = ":method=GET|:scheme=https|:authority=a|:path=/"
	http3Post = ":method=POST|:scheme=https|:authority=a|:path=/"

	http3WebSocket = ":method=CONNECT|:protocol=websocket|:scheme=https|:authority=a|:path=/ws"
)

// http3GetOf returns the fields of a GET request.
func http3GetOf(path string) string { return strings.TrimSuffix(http3Get, "/") + path }

// h3Section encodes "name=value" fields that are separated by "|".
func h3Section(fields string) []byte {
	var b bytes.Buffer
	e := qpack.NewEncoder(&b)
	for field := range strings.SplitSeq(fields, "|") {
		i := strings.Index(field[1:], "=") + 1
		e.WriteField(qpack.HeaderField{Name: field[:i], Value: field[i+1:]})
	}
	return b.Bytes()
}

// h3Head returns the frame of a head or a trailer section.
func h3Head(fields string) []byte { return h3Frame(1, h3Section(fields)) }

// h3Data returns the frame of a part of a body.
func h3Data(text string) []byte { return h3Frame(0, []byte(text)) }

// h3Frame returns a frame.
func h3Frame(frame uint64, payload []byte) []byte {
	return append(append(h3Int(frame), h3Int(uint64(len(payload)))...), payload...)
}

// h3Int returns the shortest form of an integer.
func h3Int(v uint64) []byte {
	n := 0
	for n < 3 && v >= 1<<(8<<n-2) {
		n++
	}
	return h3LongInt(v, n)
}

// h3LongInt returns an integer in 2 to the power of n bytes.
func h3LongInt(v uint64, n int) []byte {
	b := make([]byte, 1<<n)
	for i := range b {
		b[len(b)-1-i] = byte(v >> (8 * i))
	}
	b[0] |= byte(n << 6)
	return b
}

// h3ReadInt reads an integer.
func h3ReadInt(in *bufio.Reader) (uint64, error) {
	first, err := in.ReadByte()
	if err != nil {
		return 0, err
	}
	v := uint64(first & 0x3f)
	for range 1<<(first>>6) - 1 {
		b, err := in.ReadByte()
		if err != nil {
			return 0, errors.Join(io.ErrUnexpectedEOF, err)
		}
		v = v<<8 | uint64(b)
	}
	return v, nil
}

// h3ReadFrame reads a frame.
func h3ReadFrame(in *bufio.Reader) (frame uint64, payload []byte, err error) {
	if frame, err = h3ReadInt(in); err != nil {
		return 0, nil, err
	}
	length, err := h3ReadInt(in)
	if err != nil {
		return 0, nil, err
	}
	if length > 1<<24 {
		return 0, nil, fmt.Errorf("a frame of %d bytes", length)
	}
	payload = make([]byte, length)
	if _, err := io.ReadFull(in, payload); err != nil {
		return 0, nil, err
	}
	return frame, payload, nil
}
