package upstream

import (
	"bytes"
	"os"
	"sync/atomic"
	"time"

	"sluice/proxy/fields"
	"sluice/proxy/http1"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
)

// An http2Stream is a stream to a peer. It serves one exchange.
type http2Stream struct {
	entry    socket.SweepEntry
	stream   http2.Stream
	conn     *http2Conn
	client   atomic.Pointer[Client] // to probe, or nil
	owner    *Client                // of the exchange
	probe    probe
	picked   time.Time
	pause    time.Duration // the longest one in taking a streamed body
	replaces int           // how many streams of the request the peer did not process

	begun bool  // the first piece of the body was read
	left  int64 // bytes of the body that the response announces; -1: unknown

	opened int64 // coarse time

	// conn.Mu guards the fields below.
	final   bool   // the head of the final response has arrived
	heads   []byte // of responses, as text, not yet read
	trailer []byte
	fault   *http1.Fault // of a head or the trailer section that was refused
}

func newHTTP2Stream(c *http2Conn, r Requirements) *http2Stream {
	u := &http2Stream{
		conn: c, picked: r.Picked, pause: r.Pause, owner: r.Client,
	}
	u.stream.Init(&c.protocol, u, &u.entry, r.Client.Shard)
	u.entry.Probes, u.entry.Owner = true, u
	if !r.KeepForGone {
		u.client.Store(r.Client)
	}
	return u
}

// Send implements [Conn].
func (u *http2Stream) Send(b *socket.Buffers, body, trailer []byte, w Until) (sent bool, err error) {
	if err := u.open(b, body, trailer, true); err != nil {
		return false, err
	}
	if err = u.Await(b, w); err != nil {
		b.GiveBack()
	}
	return err != ErrUnprocessed, err
}

// HasSent implements [Conn].
func (u *http2Stream) HasSent() bool {
	u.conn.protocol.Mu.Lock()
	defer u.conn.protocol.Mu.Unlock()
	return u.stream.Sent
}

// SendHead implements [Conn].
func (u *http2Stream) SendHead(b *socket.Buffers, _ bool) (answered, sent bool, err error) {
	err = u.open(b, nil, nil, false)
	return false, err == nil, err
}

// open opens the stream with the head b.out. whole: the request ends with body and trailer. A head
// over the limit of the peer is http1.ErrHeadTooLong: servers end the connection, with the streams
// of others.
func (u *http2Stream) open(b *socket.Buffers, body, trailer []byte, whole bool) error {
	c := u.conn
	c.protocol.Mu.Lock()
	defer c.protocol.Mu.Unlock()
	if !whole && c.lent > 1 && !c.goAway { // the body's start would be lost with the connection; reserve has checked an idle one
		c.wire.Raw.Control(c.onCheck)
	}
	if c.protocol.Err != nil || c.goAway || c.isExhausted() {
		return ErrUnprocessed
	}
	if (!whole || len(body) > 0) && u.replaces == 0 && !c.hasRoomLocked() {
		return ErrUnprocessed // others have used up the window since reserve; where no other connection can be had, it waits
	}
	start := len(c.protocol.Output.Frames)
	frames, size := u.appendFields(c.protocol.Output.Frames, b.Out)
	if size > int(c.protocol.ListLimit) {
		return http1.ErrHeadTooLong
	}
	c.protocol.Output.Frames = frames
	u.opened = c.transport.sweeper.Now()
	u.stream.OpenLocked((c.protocol.Last + 1) | 1) // the ids of streams must rise on the wire
	ends := whole && len(body)+len(trailer) == 0
	c.protocol.Output.EndBlock(start, u.stream.ID, ends)
	switch {
	case ends:
		u.stream.EndSentLocked()
	case whole:
		// A short one is sent at once, so that an upload that is in its way can not take the
		// window.
		if frames := http2.AppendTrailer(nil, trailer, u.stream.ID); !c.protocol.Output.SendNow(&u.stream.Sender, body, frames) {
			u.stream.QueueLocked(nil, body, frames, true)
		}
	}
	c.protocol.FlushLocked()
	return nil
}

var space = []byte(" ")

// appendFields appends room for the header of a frame and the field block of the
// request, whose head the exchange wrote as text, and returns the size of its field list. It may
// have more fields than a head that is received.
func (u *http2Stream) appendFields(out, text []byte) (_ []byte, size int) {
	var room [http2.FrameHeaderBytes]byte
	line, section := http1.CutLine(text)
	method, line, _ := bytes.Cut(line, space)
	target, _, _ := bytes.Cut(line, space)
	scheme, host := u.conn.scheme(), http1.TrailerField(section, "host")
	out = fields.AppendHPACKRequest(append(out, room[:]...), method, scheme, host, target)
	size = fields.ListBytes(len(":method:scheme:authority:path")+len(method)+len(scheme)+len(host)+len(target), 4)
	for line := range http1.Lines(section) {
		switch http1.NameOf(http1.LineName(line)) {
		case http1.NameHost, http1.NameConnection, http1.NameTransferEncoding, http1.NameUpgrade, http1.NameKeepAlive, http1.NameProxyConnection:
			continue
		}
		out = fields.AppendHPACKLine(out, line)
		size += fields.ListBytes(len(line)-len(": \r\n"), 1)
	}
	return out, size
}

// TakesCoded implements [transfer.Sink].
func (u *http2Stream) TakesCoded() bool { return false }

// SinkSocket implements [transfer.Sink].
func (u *http2Stream) SinkSocket() (socket.Side, *socket.Pace) { return socket.Side{}, nil }

// SourceSocket implements [transfer.Source].
func (u *http2Stream) SourceSocket() (socket.Side, *transfer.Reader) { return socket.Side{}, nil }

// WriteBody implements [transfer.Sink]. It returns when the peer's windows have allowed to take
// all of p.
func (u *http2Stream) WriteBody(_ *socket.Buffers, p transfer.Piece) error {
	if len(p.Text) == 0 && !p.Last {
		return nil
	}
	c := u.conn
	c.protocol.Mu.Lock()
	defer c.protocol.Mu.Unlock()
	var trailer []byte
	if p.Last {
		trailer = http2.AppendTrailer(nil, p.Trailer, u.stream.ID)
	}
	return u.stream.SendLocked(nil, p.Text, trailer, p.Last)
}

// Await implements [Conn].
func (u *http2Stream) Await(b *socket.Buffers, w Until) error {
	// An error that the request may have caused is an answer: see ReadHead.
	wakes := http2.Wakes{Changed: w.Changed}
	if w.Suspicion {
		wakes.IsChanged = func() bool { return u.conn.transport.suspectedSince(u.picked) }
	}
	err := u.stream.Wait(b, func() bool { return len(u.heads) > 0 || isAnswer(u.stream.Err) }, wakes)
	if err == http2.ErrChanged {
		return ErrSuspected
	}
	return err
}

// isAnswer reports whether the request may have caused the error err of a healthy peer.
func isAnswer(err error) bool {
	return err == http1.ErrResponse || err == http1.ErrResponseField || err == ErrRejected || err == http1.ErrResponseTooLong
}

// WaitAtMost implements [Conn].
func (u *http2Stream) WaitAtMost(timeout time.Duration) {
	u.entry.Arm(u.conn.transport.sweeper, timeout)
}

// Interrupt implements [Conn].
func (u *http2Stream) Interrupt() { u.entry.Interrupt() }

// ReadHead implements [Conn].
func (u *http2Stream) ReadHead(b *socket.Buffers, head *http1.ResponseHead) (text []byte, err error) {
	if err := u.Await(b, Until{}); err != nil {
		return nil, err
	}
	b.Borrow()
	c := u.conn
	c.protocol.Mu.Lock()
	defer c.protocol.Mu.Unlock()
	if len(u.heads) == 0 {
		return nil, u.stream.Err
	}
	options := &c.transport.options
	n := copy(b.From[:http1.MaxHeadBytes], u.heads)
	head.Reset(options.Fields)
	length, err := head.Scan(b.From[:n])
	switch {
	case err != nil:
		if u.fault = faultOf(b.From[:n], options.Fields); err == http1.ErrTooManyFields {
			err = http1.ErrResponseTooLong
		}
		return nil, err
	case length == 0 && n == http1.MaxHeadBytes, length > int(options.HeadBytes) && !head.GRPC:
		// A call without a message ends with its head, which has what trailers have otherwise: the
		// details of a status are as long as there.
		u.fault = faultOfLength(int(options.HeadBytes))
		return nil, http1.ErrResponseTooLong
	case length == 0 || head.Status == 101:
		u.fault = &http1.Fault{Rule: http1.RuleStatusLine}
		return nil, http1.ErrResponse
	}
	u.heads = append(u.heads[:0], u.heads[length:]...)
	return b.From[:length], nil
}

// faultOf says why the head text is refused. All that could be repaired in HTTP/1.1 is a length
// that is given twice.
func faultOf(text []byte, maxFields int) *http1.Fault {
	if _, _, fault := http1.RepairResponse(text, maxFields); fault != nil {
		return fault
	}
	return &http1.Fault{Rule: http1.ErrContentLength.Reason, Field: "content-length"}
}

// faultOfLength is the fault of a head with more bytes than limit.
func faultOfLength(limit int) *http1.Fault {
	return &http1.Fault{Rule: http1.ErrHeadTooLong.Reason, Offset: limit}
}

// addHead adds the response head to heads. conn.Mu is held.
func (u *http2Stream) addHead(head *fields.Fields) error {
	status := len(u.heads) + len("HTTP/1.1 ")
	heads, err := head.AppendResponse(u.heads)
	if err != nil {
		return err
	}
	u.heads, u.final = heads, heads[status] != '1'
	return nil
}

// StartBody implements [Conn]. It waits for a body with a Content-Length as
// [HTTP1Conn.awaitBodyStart] does.
func (u *http2Stream) StartBody(_ *socket.Buffers, head *http1.ResponseHead, _ []byte, bodiless bool) error {
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
	arrived := func() bool { return u.stream.Received || u.stream.Body.Length() >= enough }
	var none socket.Buffers // the head is in the exchange's
	switch err := u.stream.Wait(&none, arrived, http2.Wakes{Patience: bodyStartTimeout}); err {
	case http2.ErrPatience, os.ErrDeadlineExceeded: // the head was in time
		return nil
	default:
		return err
	}
}

// ReadBody implements [transfer.Source].
func (u *http2Stream) ReadBody(b *socket.Buffers, _ bool) (p transfer.Piece, err error) {
	if u.begun {
		if err := u.stream.Wait(b, u.bodyArrived, http2.Wakes{}); err != nil {
			return p, err
		}
	}
	c := u.conn
	c.protocol.Mu.Lock()
	defer c.protocol.Mu.Unlock()
	if !u.begun && u.stream.Err != nil && !u.bodyArrived() {
		return p, u.stream.Err
	}
	// The head in b.out, and its text at the start of b.from, may still be needed.
	u.begun = true
	b.Borrow()
	n, last := u.stream.TakeLocked(b.From)
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
func (u *http2Stream) bodyArrived() bool { return u.stream.Received || !u.stream.Body.Empty() }

// BodyPauses implements [Conn].
func (u *http2Stream) BodyPauses(b *socket.Buffers, patience time.Duration) (bool, error) {
	err := u.stream.Wait(b, u.bodyArrived, http2.Wakes{Patience: patience})
	if err == http2.ErrPatience {
		return true, nil
	}
	return false, err
}

// ClosedIdle implements [Conn].
func (u *http2Stream) ClosedIdle(err error) (maybe, likely bool) {
	u.conn.protocol.Mu.Lock()
	defer u.conn.protocol.Mu.Unlock()
	if err == ErrUnprocessed {
		again := u.replaces < http2Refusals || u.conn.served && u.replaces < http2Replacements
		return again, again
	}
	maybe = u.replaces == 0 && u.conn.protocol.Err != nil && u.conn.unheard && time.Since(u.picked) < staleWithin
	return maybe, false
}

// Finish implements [Conn]. It ends all waits for the stream: the goroutine that sends the
// body may wait for a window that the peer, which has answered, does not enlarge. After a panic
// under the mutex of the connection, also one of this call, it ends the connection.
func (u *http2Stream) Finish(bool) {
	c := u.conn
	u.entry.Remove()
	defer func() {
		if c.protocol.Mu.Torn() {
			c.OnPanic()
		} else if u.fault != nil {
			c.transport.refused.report(*u.fault)
		}
	}()
	c.protocol.Mu.Lock()
	defer c.protocol.Mu.Unlock()
	if u.stream.ID != 0 && c.protocol.Err == nil && !u.stream.Stopped && (!u.stream.Received || !u.stream.Sent) {
		u.stream.ResetLocked(http2.Cancel, socket.ErrClosedEarly)
	}
	u.stream.StopLocked(socket.ErrClosedEarly)
	u.stream.CloseLocked()
	if u.stream.ID != 0 && !u.stream.Received && c.protocol.Err == nil && c.silentSinceLocked(u.opened) {
		c.doubtLocked()
	}
	c.releasedLocked()
}

// Tunnel implements [Conn]. It is never called: ReadHead refuses a 101.
func (u *http2Stream) Tunnel(*socket.Buffers) (socket.TunnelEnd, []byte) {
	return socket.TunnelEnd{}, nil
}

// Parties implements sweepOwner of package socket.
func (u *http2Stream) Parties() (client, peer any) {
	client, _ = u.owner.Presence.Parties()
	return client, u.conn.transport
}

// OnSweep implements sweepOwner of package socket.
func (u *http2Stream) OnSweep(now int64) int64 {
	return u.probe.sweep(&u.entry, u.client.Load(), now)
}
