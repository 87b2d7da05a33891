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
	"sluice/proxy/upstream"
)

// errUnprocessed means that the peer has certainly not processed the request: it
// refused the stream, its GOAWAY excludes it, or the request was not sent.
var errUnprocessed = errors.New("the peer did not process the request")

// errRejected means that a healthy peer has refused the request.
var errRejected = errors.New("the peer considers the request malformed")

// An http2Upstream is a stream to a peer. It serves one exchange.
type http2Upstream struct {
	socket.SweepEntry
	http2.Stream
	conn     *http2PeerConn
	client   atomic.Pointer[upstream.Client] // to probe, or nil
	probe    upstream.Probe
	picked   time.Time
	pause    time.Duration      // the longest one in taking a streamed body
	blocked  *socket.SweepEntry // of the client, see side
	replaces int                // how many streams of the request the peer did not process

	begun bool  // the first piece of the body was read
	left  int64 // bytes of the body that the response announces; -1: unknown

	opened int64 // coarse time

	// conn.Mu guards the fields below.
	final   bool   // the head of the final response has arrived
	heads   []byte // of responses, as text, not yet read
	trailer []byte
}

func newHTTP2Upstream(c *http2PeerConn, r upstream.Requirements) *http2Upstream {
	u := &http2Upstream{
		conn: c, picked: r.Picked, pause: r.Pause, blocked: &r.Client.SweepEntry,
	}
	u.Init(&c.Conn, u, &u.SweepEntry, r.Client.Shard)
	u.Probes, u.Owner = true, u
	if !r.KeepForGone {
		u.client.Store(r.Client)
	}
	return u
}

// Send implements [upstream.Conn].
func (u *http2Upstream) Send(b *socket.Buffers, body, trailer []byte, w upstream.Until) (sent bool, err error) {
	if err := u.open(b, body, trailer, true); err != nil {
		return false, err
	}
	if err = u.Await(b, w); err != nil {
		b.GiveBack()
	}
	return err != errUnprocessed, err
}

// SendHead implements [upstream.Conn].
func (u *http2Upstream) SendHead(b *socket.Buffers, _ bool) (answered, sent bool, err error) {
	err = u.open(b, nil, nil, false)
	return false, err == nil, err
}

// open opens the stream with the head b.out. whole: the request ends with body and trailer.
func (u *http2Upstream) open(b *socket.Buffers, body, trailer []byte, whole bool) error {
	c := u.conn
	c.Mu.Lock()
	defer c.Mu.Unlock()
	if c.Err != nil || c.goAway || c.isExhausted() {
		return errUnprocessed
	}
	u.opened = c.transport.sweeper.Now()
	u.OpenLocked((c.Last + 1) | 1) // the ids of streams must rise on the wire
	ends := whole && len(body)+len(trailer) == 0
	start := len(c.Output.Frames)
	c.Output.Frames = u.appendFields(c.Output.Frames, b.Out)
	c.Output.EndBlock(start, u.ID, ends)
	switch {
	case ends:
		u.EndSentLocked()
		c.FlushLocked()
	case whole:
		u.QueueLocked(nil, body, appendTrailerFrames(nil, trailer, u.ID), true)
	default:
		c.FlushLocked()
	}
	return nil
}

// appendFields appends room for the header of a frame and the field block of the
// request, whose head the exchange wrote as text. It may have more fields than a head
// that is received.
func (u *http2Upstream) appendFields(out, text []byte) []byte {
	var room [http2.FrameHeaderBytes]byte
	line, fields := http1.CutLine(text)
	method, line, _ := bytes.Cut(line, space)
	target, _, _ := bytes.Cut(line, space)
	out = http2.AppendRequestStart(append(out, room[:]...), method, u.conn.scheme(), hostOf(fields), target)
	for len(fields) > len("\r\n") {
		line, fields = http1.CutLine(fields)
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
		if line, lines = http1.CutLine(lines); http1.HasName(line, "host") {
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
	c.Mu.Lock()
	defer c.Mu.Unlock()
	var trailer []byte
	if p.Last {
		trailer = appendTrailerFrames(nil, p.Trailer, u.ID)
	}
	return u.SendLocked(nil, p.Text, trailer, p.Last)
}

// Await implements [upstream.Conn].
func (u *http2Upstream) Await(b *socket.Buffers, w upstream.Until) error {
	// An error that the request may have caused is an answer: see ReadHead.
	return u.wait(b, func() bool { return len(u.heads) > 0 || isAnswer(u.Err) }, w)
}

// isAnswer reports whether the request may have caused the error err of a healthy peer.
func isAnswer(err error) bool {
	return err == http2ResponseError || err == errRejected || err == http1.ErrResponseTooLong
}

// wait waits until arrived, called with conn.Mu held, returns true, or fails as await does.
// While it waits, b is given back.
func (u *http2Upstream) wait(b *socket.Buffers, arrived func() bool, w upstream.Until) error {
	wakes := http2.Wakes{Patience: w.Patience, Changed: w.Changed}
	if w.Suspicion {
		wakes.IsChanged = func() bool { return u.conn.transport.suspectedSince(u.picked) }
	}
	switch err := u.Wait(b, arrived, wakes); err {
	case http2.ErrPatience:
		return upstream.ErrPatience
	case http2.ErrChanged:
		return upstream.ErrSuspected
	default:
		return err
	}
}

// WaitAtMost implements [upstream.Conn].
func (u *http2Upstream) WaitAtMost(timeout time.Duration) { u.Arm(u.conn.transport.sweeper, timeout) }

// ReadHead implements [upstream.Conn].
func (u *http2Upstream) ReadHead(b *socket.Buffers, head *http1.ResponseHead) (text []byte, err error) {
	if err := u.Await(b, upstream.Until{}); err != nil {
		return nil, err
	}
	b.Borrow()
	c := u.conn
	c.Mu.Lock()
	defer c.Mu.Unlock()
	if len(u.heads) == 0 {
		return nil, u.Err
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

// addHead adds the response head in fields to heads. conn.Mu is held.
func (u *http2Upstream) addHead(fields *http2.Fields) error {
	status := len(u.heads) + len("HTTP/1.1 ")
	heads, err := fields.AppendResponse(u.heads)
	if err != nil {
		return err
	}
	u.heads, u.final = heads, heads[status] != '1'
	return nil
}

// StartBody implements upstream. It waits for a body with a Content-Length as
// [upstream.HTTP1Conn.awaitBodyStart] does.
func (u *http2Upstream) StartBody(_ *socket.Buffers, head *http1.ResponseHead, _ []byte, bodiless bool) error {
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
	arrived := func() bool { return u.Received || u.Body.Length() >= enough }
	var none socket.Buffers // the head is in the exchange's
	switch err := u.wait(&none, arrived, upstream.Until{Patience: upstream.BodyStartTimeout}); err {
	case upstream.ErrPatience, os.ErrDeadlineExceeded: // the head was in time
		return nil
	default:
		return err
	}
}

// ReadBody implements source.
func (u *http2Upstream) ReadBody(b *socket.Buffers, _ bool) (p transfer.Piece, err error) {
	if u.begun {
		if err := u.wait(b, u.bodyArrived, upstream.Until{}); err != nil {
			return p, err
		}
	}
	c := u.conn
	c.Mu.Lock()
	defer c.Mu.Unlock()
	if !u.begun && u.Err != nil && !u.bodyArrived() {
		return p, u.Err
	}
	// The head in b.out, and its text at the start of b.from, may still be needed.
	u.begun = true
	b.Borrow()
	n, last := u.TakeLocked(b.From)
	p = transfer.Piece{Text: b.From[:n], Length: int64(n), Last: last}
	if last {
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

// bodyArrived reports whether ReadBody does not wait. conn.Mu is held.
func (u *http2Upstream) bodyArrived() bool { return u.Received || !u.Body.Empty() }

// BodyPauses implements [upstream.Conn].
func (u *http2Upstream) BodyPauses(b *socket.Buffers, patience time.Duration) (bool, error) {
	err := u.wait(b, u.bodyArrived, upstream.Until{Patience: patience})
	if err == upstream.ErrPatience {
		return true, nil
	}
	return false, err
}

// ClosedIdle implements [upstream.Conn].
func (u *http2Upstream) ClosedIdle(err error) (maybe, likely bool) {
	u.conn.Mu.Lock()
	defer u.conn.Mu.Unlock()
	if err == errUnprocessed {
		again := u.replaces < http2Refusals || u.conn.served && u.replaces < http2Replacements
		return again, again
	}
	maybe = u.replaces == 0 && u.conn.Err != nil && u.conn.unheard && time.Since(u.picked) < upstream.StaleWithin
	return maybe, false
}

// Finish implements [upstream.Conn]. It ends all waits for the stream: the goroutine that sends the
// body may wait for a window that the peer, which has answered, does not enlarge.
func (u *http2Upstream) Finish(bool) {
	c := u.conn
	u.Remove()
	c.Mu.Lock()
	defer c.Mu.Unlock()
	if u.ID != 0 && c.Err == nil && !u.Stopped && (!u.Received || !u.Sent) {
		u.ResetLocked(http2.Cancel, socket.ErrClosedEarly)
	}
	u.StopLocked(socket.ErrClosedEarly)
	u.CloseLocked()
	if u.ID != 0 && !u.Received && c.Err == nil && c.silentSinceLocked(u.opened) {
		c.doubtLocked()
	}
	c.releasedLocked()
}

// Tunnel implements [upstream.Conn]. It is never called: ReadHead refuses a 101.
func (u *http2Upstream) Tunnel(*socket.Buffers) (socket.TunnelEnd, []byte) {
	return socket.TunnelEnd{}, nil
}

// OnSweep implements sweepOwner.
func (u *http2Upstream) OnSweep(now int64) int64 {
	return u.probe.Sweep(&u.SweepEntry, u.client.Load(), now)
}
