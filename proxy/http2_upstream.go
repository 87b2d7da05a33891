package proxy

import (
	"bytes"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"sluice/proxy/http1"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
)

// errUnprocessed means that the peer has certainly not processed the request: it
// refused the stream, its GOAWAY excludes it, or the request was not sent.
var errUnprocessed = errors.New("the peer did not process the request")

// errRejected means that a healthy peer has refused the request.
var errRejected = errors.New("the peer considers the request malformed")

// An http2Upstream is a stream to a peer. It serves one exchange.
type http2Upstream struct {
	socket.SweepEntry
	conn     *http2PeerConn
	client   atomic.Pointer[upstreamClient] // to probe, or nil
	probe    clientProbe
	picked   time.Time
	pause    time.Duration      // the longest one in taking a streamed body
	blocked  *socket.SweepEntry // of the client, see side
	replaces int                // how many streams of the request the peer did not process

	waits *streamWaits // of the goroutines that wait for the response, and that send

	begun bool  // the first piece of the body was read
	left  int64 // bytes of the body that the response announces; -1: unknown

	// conn.mu guards the fields below.
	id       uint32 // 0: not yet open
	opened   int64  // coarse time
	err      error  // the stream has failed
	received bool   // the whole response has arrived
	stopped  bool   // the peer does not need the rest of the request
	sent     bool   // the whole request is in conn.output
	final    bool   // the head of the final response has arrived
	heads    []byte // of responses, as text, not yet read
	body     socket.ByteQueue
	trailer  []byte
	granted  int // bytes that the peer may send
	owed     int // bytes that were read and not granted again
	sender   http2.Sender
}

func newHTTP2Upstream(c *http2PeerConn, r requirements) *http2Upstream {
	u := &http2Upstream{
		conn: c, picked: r.picked, pause: r.pause, blocked: &r.client.SweepEntry,
		waits: newStreamWaits(),
	}
	c.transport.sweeper.Add(&u.SweepEntry, u.waits, r.client.shard)
	u.Probes, u.Owner = true, u
	if !r.keepForGone {
		u.client.Store(r.client)
	}
	return u
}

// send implements upstream.
func (u *http2Upstream) send(b *socket.Buffers, body, trailer []byte, w until) (sent bool, err error) {
	if err := u.open(b, body, trailer, true); err != nil {
		return false, err
	}
	if err = u.await(b, w); err != nil {
		b.GiveBack()
	}
	return err != errUnprocessed, err
}

// sendHead implements upstream.
func (u *http2Upstream) sendHead(b *socket.Buffers, _ bool) (answered, sent bool, err error) {
	err = u.open(b, nil, nil, false)
	return false, err == nil, err
}

// open opens the stream with the head b.out. whole: the request ends with body and trailer.
func (u *http2Upstream) open(b *socket.Buffers, body, trailer []byte, whole bool) error {
	c := u.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.goAway || c.next > http2LastID {
		return errUnprocessed
	}
	// The ids of streams must rise on the wire.
	u.id, u.opened = c.next, c.transport.sweeper.Now()
	c.next += 2
	c.streams[u.id] = u
	c.output.Open(&u.sender, u, u.id)
	u.granted = http2.InitialWindow
	start := len(c.output.Frames)
	c.output.Frames = u.appendFields(c.output.Frames, b.Out)
	u.sent = whole && len(body)+len(trailer) == 0
	c.output.EndBlock(start, u.id, u.sent)
	if whole && !u.sent {
		c.output.Send(&u.sender, nil, body, appendTrailerFrames(nil, trailer, u.id), true)
	}
	c.flushLocked()
	return nil
}

// appendFields appends room for the header of a frame and the field block of the
// request, whose head the exchange wrote as text. It may have more fields than a head
// that is received.
func (u *http2Upstream) appendFields(out, text []byte) []byte {
	var room [http2.FrameHeaderBytes]byte
	line, fields := cutLine(text)
	method, line, _ := bytes.Cut(line, space)
	target, _, _ := bytes.Cut(line, space)
	out = http2.AppendRequestStart(append(out, room[:]...), method, u.conn.scheme(), hostOf(fields), target)
	for len(fields) > len("\r\n") {
		line, fields = cutLine(fields)
		name, _, _ := bytes.Cut(line, colon)
		switch http1.NameOf(name) {
		case http1.NameHost, http1.NameConnection, http1.NameTransferEncoding, http1.NameUpgrade, http1.NameKeepAlive, http1.NameProxyConnection:
			continue
		}
		out = appendFieldLine(out, line)
	}
	return out
}

// hostOf returns the value of the Host line among lines.
func hostOf(lines []byte) []byte {
	for len(lines) > len("\r\n") {
		var line []byte
		if line, lines = cutLine(lines); hasName(line, "host") {
			return bytes.Trim(line[len("host:"):], " \t\r\n")
		}
	}
	return nil
}

// TakesCoded implements sink.
func (u *http2Upstream) TakesCoded() bool { return false }

// SinkSocket implements sink.
func (u *http2Upstream) SinkSocket() (socket.Side, *socket.Pace) { return socket.Side{}, nil }

// SourceSocket implements source.
func (u *http2Upstream) SourceSocket() (socket.Side, *transfer.Reader) { return socket.Side{}, nil }

// WriteBody implements sink. It returns when the peer's windows have allowed to take
// all of p.
func (u *http2Upstream) WriteBody(_ *socket.Buffers, p transfer.Piece) error {
	if len(p.Text) == 0 && !p.Last {
		return nil
	}
	c := u.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if u.isClosed() {
		return socket.ErrClosedEarly
	}
	var trailer []byte
	if p.Last {
		trailer = appendTrailerFrames(nil, p.Trailer, u.id)
	}
	left := len(p.Text) + 1
	c.output.Send(&u.sender, nil, p.Text, trailer, p.Last)
	c.flushLocked()
	for u.sender.IsSending() && !u.isClosed() {
		if u.sender.Left() < left || u.blocked.WriteDeadline.Load() != 0 {
			left = u.sender.Left()
			u.ArmWrite(c.transport.sweeper.Now() + int64(u.pause))
		}
		c.flushLocked()
		c.mu.Unlock()
		<-u.waits.writable
		expired := u.waits.writeDue.Load() && u.WriteExpired(c.transport.sweeper)
		c.mu.Lock()
		if expired && u.sender.IsSending() && (u.sender.Left() == left || u.Interrupted.Load()) {
			c.output.Drop(&u.sender)
			u.WriteDeadline.Store(0)
			return os.ErrDeadlineExceeded
		}
	}
	u.WriteDeadline.Store(0)
	c.flushLocked()
	if u.sender.IsSending() {
		c.output.Drop(&u.sender)
		return socket.ErrClosedEarly
	}
	return nil
}

// isClosed reports whether the peer gets no more of the request: the stream has failed, or
// the exchange has ended. conn.mu is held.
func (u *http2Upstream) isClosed() bool { return u.err != nil || u.stopped }

// await implements upstream.
func (u *http2Upstream) await(b *socket.Buffers, w until) error {
	// An error that the request may have caused is an answer: see readHead.
	return u.wait(b, func() bool { return len(u.heads) > 0 || isAnswer(u.err) }, w)
}

// isAnswer reports whether the request may have caused the error err of a healthy peer.
func isAnswer(err error) bool {
	return err == http2ResponseError || err == errRejected || err == http1.ErrResponseTooLong
}

// wait waits until arrived, called with conn.mu held, returns true, or fails as await does.
// While it waits, b is given back.
func (u *http2Upstream) wait(b *socket.Buffers, arrived func() bool, w until) error {
	c := u.conn
	var impatient <-chan time.Time
	for {
		c.mu.Lock()
		there, err := arrived(), u.err
		c.mu.Unlock()
		switch {
		case there:
			return nil
		case err != nil:
			return err
		case w.suspicion && c.transport.suspectedSince(u.picked):
			return errSuspected
		case u.waits.readDue.Load() && u.Expired(c.transport.sweeper):
			return os.ErrDeadlineExceeded
		case w.patience > 0 && impatient == nil:
			timer := time.NewTimer(w.patience)
			defer timer.Stop()
			impatient = timer.C
		}
		b.GiveBack()
		select {
		case <-u.waits.readable:
		case <-impatient:
			return errPatience
		case <-w.changed:
			return errSuspected
		}
	}
}

// waitAtMost implements upstream.
func (u *http2Upstream) waitAtMost(timeout time.Duration) { u.Arm(u.conn.transport.sweeper, timeout) }

// readHead implements upstream.
func (u *http2Upstream) readHead(b *socket.Buffers, head *http1.ResponseHead) (text []byte, err error) {
	if err := u.await(b, until{}); err != nil {
		return nil, err
	}
	b.Borrow()
	c := u.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(u.heads) == 0 {
		return nil, u.err
	}
	options := &c.transport.options
	n := copy(b.From[:options.HeadBytes], u.heads)
	head.Reset(options.Fields)
	length, err := head.Scan(b.From[:n])
	switch {
	case err == http1.ErrTooManyFields:
		return nil, http1.ErrResponseTooLong
	case err != nil:
		return nil, err
	case length == 0 && n == options.HeadBytes:
		return nil, http1.ErrResponseTooLong
	case length == 0 || head.Status == 101:
		return nil, http1.ErrResponse
	}
	u.heads = append(u.heads[:0], u.heads[length:]...)
	return b.From[:length], nil
}

// addHead adds the response head in fields to heads. conn.mu is held.
func (u *http2Upstream) addHead(fields *http2.Fields) error {
	status := len(u.heads) + len("HTTP/1.1 ")
	heads, err := fields.AppendResponse(u.heads)
	if err != nil {
		return err
	}
	u.heads, u.final = heads, heads[status] != '1'
	return nil
}

// startBody implements upstream. It waits for a body with a Content-Length as
// [upstreamConn.awaitBodyStart] does.
func (u *http2Upstream) startBody(_ *socket.Buffers, head *http1.ResponseHead, _ []byte, bodiless bool) error {
	if u.left = head.ContentLength; bodiless {
		u.left = 0
	}
	if u.left <= 0 {
		return nil
	}
	enough := 1
	if u.left <= socket.ResponseBufferBytes {
		enough = int(u.left)
	}
	arrived := func() bool { return u.received || u.body.Length() >= enough }
	var none socket.Buffers // the head is in those of the exchange
	switch err := u.wait(&none, arrived, until{patience: bodyStartTimeout}); err {
	case errPatience, os.ErrDeadlineExceeded: // the head was in time
		return nil
	default:
		return err
	}
}

// ReadBody implements source.
func (u *http2Upstream) ReadBody(b *socket.Buffers, _ bool) (p transfer.Piece, err error) {
	if u.begun {
		if err := u.wait(b, u.bodyArrived, until{}); err != nil {
			return p, err
		}
	}
	c := u.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !u.begun && u.err != nil && !u.bodyArrived() {
		return p, u.err
	}
	// The head in b.out, and its text at the start of b.from, may still be needed.
	u.begun = true
	b.Borrow()
	n := u.body.Take(b.From)
	u.grantLocked(n)
	p = transfer.Piece{Text: b.From[:n], Length: int64(n)}
	if p.Last = u.received && u.body.Empty(); p.Last {
		p.Trailer = u.trailer
	}
	if u.left >= 0 {
		// RFC 9113, section 8.1.1: otherwise the rest would be another response for an
		// HTTP/1 client.
		if u.left -= p.Length; u.left < 0 || p.Last && u.left > 0 {
			return p, http1.ErrResponse
		}
	}
	return p, nil
}

// bodyArrived reports whether ReadBody does not wait. conn.mu is held.
func (u *http2Upstream) bodyArrived() bool { return u.received || !u.body.Empty() }

// bodyPauses implements upstream.
func (u *http2Upstream) bodyPauses(b *socket.Buffers, patience time.Duration) (bool, error) {
	err := u.wait(b, u.bodyArrived, until{patience: patience})
	if err == errPatience {
		return true, nil
	}
	return false, err
}

// grantLocked lets the peer send n more bytes, which were read.
func (u *http2Upstream) grantLocked(n int) {
	u.owed += n
	if u.received || u.owed < http2.InitialWindow/2 {
		return
	}
	c := u.conn
	c.output.Frames = http2.AppendWindowUpdate(c.output.Frames, u.id, u.owed)
	u.granted += u.owed
	u.owed = 0
	c.flushLocked()
}

// closedIdle implements upstream.
func (u *http2Upstream) closedIdle(err error) (maybe, likely bool) {
	u.conn.mu.Lock()
	defer u.conn.mu.Unlock()
	if err == errUnprocessed {
		again := u.replaces < http2Refusals || u.conn.served && u.replaces < http2Replacements
		return again, again
	}
	maybe = u.replaces == 0 && u.conn.err != nil && u.conn.unheard && time.Since(u.picked) < staleWithin
	return maybe, false
}

// finish implements upstream. It ends all waits for the stream: the goroutine that sends the
// body may wait for a window that the peer, which has answered, does not enlarge.
func (u *http2Upstream) finish(bool) {
	c := u.conn
	u.Remove()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.output.Drop(&u.sender) // it belongs to the exchange
	u.body.Drop()
	if u.id != 0 {
		delete(c.streams, u.id)
		if c.err == nil && u.err == nil && (!u.received || !u.sent) {
			c.resetLocked(u, http2.Cancel, socket.ErrClosedEarly)
		}
	}
	u.endLocked(socket.ErrClosedEarly)
	if u.id != 0 && !u.received && c.err == nil && c.silentSinceLocked(u.opened) {
		c.doubtLocked()
	}
	c.releasedLocked()
}

// tunnel implements upstream. It is never called: readHead refuses a 101.
func (u *http2Upstream) tunnel(*socket.Buffers) (socket.TunnelEnd, []byte) {
	return socket.TunnelEnd{}, nil
}

// failLocked ends the stream with err.
func (u *http2Upstream) failLocked(err error) {
	if u.received && err == socket.ErrClosedEarly {
		err = nil // the response is whole
	}
	u.endLocked(err)
}

// endLocked lets the peer have no more of the request, and wakes all waits for the stream.
func (u *http2Upstream) endLocked(err error) {
	if u.err == nil {
		u.err = err
	}
	u.stopped = true
	u.conn.output.Halt(&u.sender)
	signal(u.waits.readable)
	signal(u.waits.writable)
}

// OnSweep implements sweepOwner.
func (u *http2Upstream) OnSweep(now int64) int64 {
	return u.probe.sweep(&u.SweepEntry, u.client.Load(), now)
}
