package proxy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"sluice/proxy/http1"
	"sluice/proxy/reserved"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
)

// An http1Exchange is an exchange of a clientConn, with what its downstream needs during
// the exchange. The fields without pointers come last, as in request.
type http1Exchange struct {
	reader  socket.BufferedReader // of the request's body
	framed  transfer.Reader       // the same, by its framing
	writer  socket.Writer         // its pace records whether the response had to wait
	framing framing               // of the response's body
	keep    bool                  // the connection stays open after the exchange
	surplus []byte                // bytes that were read with the end of a body
	exchange
}

// next prepares the exchange for the next request, for the rest of which the client may let it
// wait.
func (x *http1Exchange) next() {
	x.body.buffers.GiveBack()
	x.request.start += x.request.headLength + x.request.bodyLength
	if x.request.start == x.request.end {
		x.request.dropLarge()
		x.request.start, x.request.end = 0, 0
		if len(x.surplus) > len(x.request.in) {
			x.request.growTo(len(x.surplus))
		}
		x.request.end = copy(x.request.in, x.surplus)
		x.surplus = nil
	}
	x.body.dropBody()
	x.request.reset()
}

// framing is how the body of a response ends for the client.
type framing uint8

const (
	framingNone    framing = iota // there is no body
	framingLength                 // Content-Length
	framingChunked                // chunked coding
	framingClose                  // the end of the connection
)

var exchanges = sync.Pool{New: func() any {
	x := new(http1Exchange)
	x.link()
	return x
}}

// A clientConn is the downstream of its exchanges.

// begin implements downstream.
func (c *clientConn) begin() {
	c.phase, c.client.mayPreface = phaseRequest, false
	c.client.Entry.Disarm()
	c.client.server.ended.count(c.lifetime.Begin(c.client.server.sweeper, &c.client.options.Connections))
	x := c.exchange
	x.keep = false
	x.writer.Pace.Waited = false
	if x.request.streaming {
		x.framed = transfer.Reader{Chunked: x.request.head.Chunked, Left: max(x.request.head.ContentLength, 0)}
	}
}

// keepsOpen implements downstream. After an unread body, the start of the next request is
// unknown.
func (c *clientConn) keepsOpen() bool {
	x := c.exchange
	return x.request.headLength > 0 && x.request.head.Persistent() && !c.lifetime.Over && !c.client.draining() && x.body.bodyRead()
}

// ReadBody implements source. The first bytes may be in the exchange's buffer.
func (c *clientConn) ReadBody(b *socket.Buffers, coded bool) (p transfer.Piece, err error) {
	x := c.exchange
	text := x.request.in[x.request.start+x.request.headLength+x.request.bodyLength : x.request.end]
	if len(text) > 0 {
		p, n, err := x.framed.Next(text, coded)
		x.request.bodyLength += n
		return p, err
	}
	c.client.Entry.Arm(c.client.server.sweeper, c.client.options.Timeouts.Body)
	defer c.client.Entry.Disarm()
	for {
		n, err := x.reader.Read(c.wire, b, 0, x.framed.Most(coded))
		switch {
		case n > 0:
			text = b.From[:n]
			p, n, err := x.framed.Next(text, coded)
			x.surplus = bytes.Clone(text[n:])
			return p, err
		case err == io.EOF:
			return p, io.ErrUnexpectedEOF
		case !errors.Is(err, os.ErrDeadlineExceeded) || c.client.Entry.Expired(c.client.server.sweeper):
			return p, err
		}
	}
}

// closeAfterAnswer implements downstream.
func (c *clientConn) closeAfterAnswer() { c.exchange.keep, c.linger = false, true }

// TakesCoded implements sink.
func (c *clientConn) TakesCoded() bool { return c.exchange.framing == framingChunked }

// WriteBody implements sink. It forwards the trailer section to clients that accept
// one (RFC 9110, section 6.5.1).
func (c *clientConn) WriteBody(b *socket.Buffers, p transfer.Piece) error {
	x, out := c.exchange, b.Out
	b.Out = out[:0]
	return transfer.Send(out, p, x.framing == framingChunked, x.request.head.TETrailers, c.send)
}

// writeAnswer implements downstream.
func (c *clientConn) writeAnswer(text, body []byte) error {
	c.exchange.keep = c.keepsOpen()
	if err := c.send(text); err != nil || len(body) == 0 {
		return err
	}
	c.exchange.body.buffers.GiveBack() // the client may be slow
	return c.send(body)
}

// waited implements downstream.
func (c *clientConn) waited() bool { return c.exchange.writer.Pace.Waited }

// send sends b to the client, encrypted if the connection uses TLS.
func (c *clientConn) send(b []byte) error {
	if c.wire.TLS == nil {
		return c.sendRaw(b)
	}
	records := socket.SealBuffers.Get().(*socket.Buffer)
	defer socket.SealBuffers.Put(records)
	return c.wire.TLS.SealEach(b, records, c.sendRaw)
}

// sendRaw sends b unencoded.
func (c *clientConn) sendRaw(b []byte) error {
	if c.reading && !c.client.Entry.Interrupted.Load() {
		n, err := socket.Send(uintptr(c.watch.FD), b)
		if n == len(b) || err != nil && err != socket.ErrWouldBlock {
			return err
		}
		b = b[n:]
	}
	_, err := c.exchange.writer.Write(c.side(c.client.options.Timeouts.Write), b)
	return err
}

// isWhole implements downstream.
func (c *clientConn) isWhole(sent int64) bool {
	x := c.exchange
	return x.framing == framingLength && sent == x.answer.response.ContentLength || x.framing == framingNone && sent == 0
}

// cut implements downstream. If the end of the connection marks the end of the response,
// the connection must be reset. A client that has a whole response may be sending its next request.
func (c *clientConn) cut(sent int64) {
	if c.isWhole(sent) {
		return
	}
	c.exchange.keep, c.cutOff = false, true
	c.reset = c.delimits.Load()
}

// SourceSocket implements source.
func (c *clientConn) SourceSocket() (socket.Side, *transfer.Reader) {
	if c.wire.TLS != nil {
		return socket.Side{}, nil
	}
	return c.side(c.client.options.Timeouts.Body), &c.exchange.framed
}

// SinkSocket implements sink.
func (c *clientConn) SinkSocket() (socket.Side, *socket.Pace) {
	if c.wire.TLS != nil || c.exchange.framing != framingLength {
		return socket.Side{}, nil
	}
	return c.side(c.client.options.Timeouts.Write), &c.exchange.writer.Pace
}

func (c *clientConn) side(timeout time.Duration) socket.Side {
	return socket.Side{Raw: c.wire.Raw, Entry: &c.client.Entry, Sweeper: c.client.server.sweeper, Timeout: timeout}
}

// tunnel implements downstream. The end of the connection is the end of the bytes.
func (c *clientConn) tunnel(*socket.Tunnel) (end socket.TunnelEnd, early []byte) {
	x := c.exchange
	x.framing = framingClose
	c.delimits.Store(true)
	if early = x.request.in[x.request.start+x.request.headLength+x.request.bodyLength : x.request.end]; len(early) == 0 {
		early = x.surplus
	}
	x.request.bodyLength, x.surplus = x.request.end-x.request.start-x.request.headLength, nil
	return socket.TunnelEnd{Wire: c.wire, Entry: &c.client.Entry}, early
}

// IsGone implements downstream. A client that has closed only its sending side counts as
// gone, as in nginx: the two cases cannot be distinguished.
func (c *clientConn) IsGone() bool {
	gone := c.client.listener.cut.Load() || c.client.isRevoked()
	if !gone {
		err := c.wire.Raw.Control(func(fd uintptr) { gone = socket.Ended(fd, c.wire.TLS != nil) })
		gone = gone && err == nil
	}
	if gone {
		c.client.Gone.Store(true)
	}
	return gone
}

// chooseFraming sets the framing of the body. keep is what the client allows.
func (x *http1Exchange) chooseFraming(keep bool) {
	head := &x.answer.response
	x.keep = keep && head.Status != 101
	switch {
	case head.Bodiless(x.request.head.Method == http1.MethodHead):
		x.framing = framingNone
	case !head.Chunked && head.ContentLength >= 0:
		x.framing = framingLength
	case x.request.head.HTTP10:
		x.framing, x.keep = framingClose, false
	default:
		x.framing = framingChunked
	}
}

// appendHead implements downstream. It copies adjacent lines at once.
func (c *clientConn) appendHead(out, b []byte) []byte {
	x := c.exchange
	head := &x.answer.response
	if !head.Interim() {
		if x.chooseFraming(c.keepsOpen()); x.framing == framingClose {
			c.delimits.Store(true)
		}
	}
	out = append(out, "HTTP/1.1 "...)
	status := head.StatusText(b)
	out = append(out, status...)
	if len(status) == len("200") {
		out = append(out, ' ')
	}
	out = append(out, "\r\n"...)

	runStart, runEnd := 0, 0
	for _, f := range head.Fields() {
		start, end := f.Line()
		if reserved.Names[f.Name] != reserved.Free && x.dropsResponseField(f, b) || f.Nominated {
			out = append(out, b[runStart:runEnd]...)
			runStart, runEnd = end, end
			continue
		}
		if runEnd == 0 {
			runStart = start
		}
		runEnd = end
	}
	out = append(out, b[runStart:runEnd]...)

	if head.Interim() {
		return append(out, "\r\n"...)
	}
	out = x.request.appendRequestIDLine(x.tries.appendCookies(out))
	if hsts := c.client.listener.StrictTransportSecurity; hsts != "" {
		out = http1.AppendLine(out, "Strict-Transport-Security: ", hsts)
	}
	if services := c.client.listener.alternativeServices(); services != "" {
		out = http1.AppendLine(out, "Alt-Svc: ", services)
	}
	if head.Status == 101 {
		return append(out, "Connection: Upgrade\r\n\r\n"...)
	}
	if x.framing == framingChunked ||
		x.framing == framingNone && head.Chunked && x.request.head.Method == http1.MethodHead && !x.request.head.HTTP10 {
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	if head.Status == 426 && head.Has(http1.NameUpgrade) {
		out = append(out, "Connection: Upgrade\r\n"...) // RFC 9110, section 7.8
	}
	switch {
	case !x.keep:
		out = append(out, "Connection: close\r\n"...)
	case x.request.head.HTTP10:
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	return append(out, "\r\n"...)
}

// dropsResponseField reports whether f of the head b is not forwarded.
func (x *http1Exchange) dropsResponseField(f http1.Field, b []byte) bool {
	if f.Name == http1.NameUpgrade {
		return x.answer.response.Status != 101 && x.answer.response.Status != 426
	}
	return x.answer.dropsField(f, b, x.framing == framingChunked && x.request.head.TETrailers)
}

// Closing a connection that has unread bytes, or receives more, makes the kernel
// reset it, and the client may lose the response. Therefore sluice first closes its
// sending side, and reads and discards what the client sends (RFC 9112, section
// 9.6), up to these limits.
const (
	lingerTimeout = 2 * time.Second
	// lingerBytes exceeds the bytes in flight from a fast and distant client.
	lingerBytes       = 4 << 20
	lingerConnections = 1000 // at a time; others are closed at once
)

// sendsOn reports whether bytes follow the last request, or may follow it because
// the client expects to reuse the connection. x may be nil: there is none.
func (x *http1Exchange) sendsOn(raw syscall.RawConn) bool {
	switch {
	case x == nil || x.request.headLength == 0: // the client has closed the connection
		return false
	case x.request.start+x.request.headLength+x.request.bodyLength < x.request.end || len(x.surplus) > 0:
		return true
	case !x.request.head.Persistent():
		return false
	}
	nothing := true
	err := raw.Control(func(fd uintptr) { nothing = socket.Quiet(fd) })
	return err == nil && !nothing
}

// linger closes the sending side and discards what the client sends, within
// the limits.
func (s *Server) linger(w socket.Wire, e *socket.SweepEntry) {
	defer s.lingering.Add(-1)
	if s.lingering.Add(1) > lingerConnections || w.CloseWrite() != nil {
		return
	}
	e.Arm(s.sweeper, lingerTimeout)
	var (
		reader socket.BufferedReader
		b      socket.Buffers
	)
	defer b.GiveBack()
	for left := lingerBytes; left > 0; {
		n, err := reader.Read(socket.Wire{Raw: w.Raw}, &b, 0, socket.RelayBufferBytes)
		left -= n
		if err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || e.Expired(s.sweeper)) {
			return
		}
	}
}
