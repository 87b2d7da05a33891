package proxy

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"time"

	"sluice/observe/panics"
	"sluice/proxy/http1"
	"sluice/proxy/http2"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
)

// An http2Stream is a stream of an http2ClientConn, and the downstream of its exchange. It is
// reused for later streams of the connection. Except for the first one of a connection,
// it counts as a connection for the limits of the server: a request takes as much
// memory.
type http2Stream struct {
	client
	conn     *http2ClientConn
	exchange *httpExchange
	admitted bool

	onServe func() // serve as a value: creating it allocates
	refused error  // why the request is refused, or nil
	failed  bool   // it has panicked, and is not used again
	waits   *streamWaits
	delayed bool // a part of the response had to wait for the client; of the sending goroutine

	// connect does not change while the stream is served: the request is an extended
	// CONNECT (RFC 8441).
	connect  bool
	inTunnel *socket.Tunnel // that the stream is an end of; nil: none

	// conn.mu guards the fields below. id does not change while the stream is served.
	id       uint32
	opened   int64 // coarse time
	aborted  bool  // by the client or by its fault, or the connection has failed
	canceled bool  // aborted by the client
	received bool  // the whole request has arrived
	sent     bool  // the whole response is in conn.output
	answered bool  // a final response has begun

	// The body of the request.
	body     socket.ByteQueue // that was not read
	trailer  []byte           // field lines
	expected int64            // bytes that Content-Length announces and that have not arrived; -1: unknown
	granted  int64            // bytes that the client may send
	limit    int64            // of granted
	owed     int64            // bytes that were read and not granted again
	taken    int64            // bytes that were read since limit was set

	// What is being sent.
	sender      http2.Sender
	moved       bool  // since send last checked
	movedBefore int64 // conn.moved when the write timeout was last set
}

var streamExchanges = sync.Pool{New: func() any { return new(httpExchange) }}

var errStreamAborted = errors.New("stream was reset")

// takeStreamLocked returns an unused stream, or nil: there are too many.
func (h *http2ClientConn) takeStreamLocked() *http2Stream {
	if n := len(h.free); n > 0 {
		s := h.free[n-1]
		h.free = h.free[:n-1]
		return s
	}
	c := h.conn
	admitted := len(h.streams) > 0
	if admitted && !c.server.admission.admit(c.remote, false) {
		return nil
	}
	s := &http2Stream{
		client: client{
			upstreamClient: upstreamClient{shard: c.shard}, server: c.server, listener: c.listener, remote: c.remote, address: c.address,
			isHTTP2: true, certificate: c.certificate, session: c.session,
		},
		conn: h, admitted: admitted, waits: newStreamWaits(),
	}
	s.downstream, s.presence, s.onServe = s, s, s.serve
	c.server.sweeper.Add(&s.SweepEntry, s.waits, c.shard)
	return s
}

// dropFreeLocked releases the unused streams.
func (h *http2ClientConn) dropFreeLocked() {
	for _, s := range h.free {
		s.Remove()
		if s.admitted {
			s.server.admission.leave(s.remote)
		}
	}
	h.free = nil
}

// prepare makes s ready for the stream id.
func (s *http2Stream) prepare(id uint32) {
	s.id, s.opened = id, s.server.sweeper.Now()
	s.aborted, s.canceled, s.received, s.sent, s.answered = false, false, false, false, false
	s.trailer, s.expected = nil, -1
	s.granted, s.limit, s.owed, s.taken = http2.InitialWindow, http2.InitialWindow, 0, 0
	s.conn.output.Open(&s.sender, s, id)
	s.delayed, s.refused, s.connect = false, nil, false
	s.gone.Store(false)
	s.exchange = streamExchanges.Get().(*httpExchange)
	s.exchange.open(&s.client)
}

// serve serves the request of the stream.
func (s *http2Stream) serve() {
	defer s.conn.work.Done()
	defer panics.Contain(panics.Stream, s.fail)
	growStack(nil)
	x := s.exchange
	switch err := s.scan(); {
	case err == nil:
		x.serve()
	case err != errStreamAborted:
		x.begin()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			x.refuse(refusal.BodyTimeout)
		} else {
			x.refuseMalformed(err)
		}
	}
	s.release()
	s.end()
}

// growStack makes the stack of a new goroutine as large as most requests need it, 4 KiB. It would
// grow to that anyway, but deep in calls, and then all their frames are copied and adjusted. Here
// a large frame makes it grow while there is little to copy. use is nil: then the memory of the
// frame is not even cleared.
//
//go:noinline
func growStack(use func(byte)) {
	if use != nil {
		var frame [2 << 10]byte
		for i := range frame {
			use(frame[i])
		}
	}
}

// release releases the exchange.
func (s *http2Stream) release() {
	s.exchange.close()
	streamExchanges.Put(s.exchange)
	s.exchange = nil
}

// scan scans the head, and reads a body that fits the buffer of the exchange.
func (s *http2Stream) scan() error {
	x := s.exchange
	if s.refused != nil {
		return s.refused
	}
	x.upgrade = s.connect
	n, err := x.head.Scan(x.in[:x.end])
	if err != nil {
		text := x.in[:x.end]
		method, _, _ := bytes.Cut(text, space)
		x.noteCall(method, http1.TrailerField(text, "content-type")) // the scan has not seen all fields
		return err
	}
	x.headLength = n
	if x.upgrade {
		return x.offerWebSocket()
	}
	if !x.head.HasBody() {
		return nil
	}
	length := x.head.ContentLength
	if length < 0 && x.asksForGRPC() {
		length = s.wholeBody()
	}
	if most := x.client.options.Limits.BodyBytes; most > 0 && length > most {
		return http1.ErrBodyTooLong
	}
	if x.streaming = true; length < 0 || x.head.ExpectContinue || length > int64(socket.RequestBufferBytes-n) {
		return nil
	}
	end := n + int(length)
	for last := false; !last; {
		if err := s.awaitBody(&x.Buffers, s.options.Timeouts.Body); err != nil {
			return err
		}
		if x.end == len(x.in) && x.end < end { // not before there are bytes
			x.growTo(x.end + 1)
		}
		var read int
		read, last, x.bodyTrailer = s.takeBody(x.in[x.end:min(end, len(x.in))])
		x.end += read
	}
	x.bodyLength, x.streaming = int(length), false
	return nil
}

// firstMessageWait is how long a call of gRPC waits for its first message, if it does not
// arrive with the head: some clients write both separately.
const firstMessageWait = 5 * time.Millisecond

// wholeBody returns the length of the body of a gRPC call if the first bytes that arrive
// are all of it, without a trailer section; else -1. So a unary call, which announces no
// length, can be replayed.
func (s *http2Stream) wholeBody() int64 {
	h := s.conn
	var late <-chan time.Time
	for {
		h.mu.Lock()
		aborted, received, length, trailer := s.aborted, s.received, s.body.Length(), s.trailer
		h.mu.Unlock()
		switch {
		case aborted, len(trailer) > 0, length > 0 && !received:
			return -1
		case received:
			return int64(length)
		case late == nil:
			timer := time.NewTimer(firstMessageWait)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-s.waits.readable:
		case <-late:
			return -1
		}
	}
}

// awaitBody waits for a part of the body, or its end. While it waits, b is given back.
func (s *http2Stream) awaitBody(b *socket.Buffers, timeout time.Duration) error {
	h := s.conn
	s.Arm(s.server.sweeper, timeout)
	defer s.Disarm()
	for {
		h.mu.Lock()
		aborted, ready := s.aborted, s.received || !s.body.Empty()
		h.mu.Unlock()
		switch {
		case aborted:
			return errStreamAborted
		case ready:
			return nil
		case s.waits.readDue.Load() && s.Expired(s.server.sweeper):
			return os.ErrDeadlineExceeded
		}
		b.GiveBack()
		<-s.waits.readable
	}
}

// takeBody moves bytes of the body that have arrived to b, and returns their number. At
// the end it also returns the trailer section.
func (s *http2Stream) takeBody(b []byte) (n int, last bool, trailer []byte) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	n = s.body.Take(b)
	s.grantLocked(n)
	last = s.received && !s.aborted && s.body.Empty() // a part of a body is not the whole
	return n, last, s.trailer
}

// grantLocked lets the client send n more bytes, which were read, and more if it uses
// the whole window again and again.
func (s *http2Stream) grantLocked(n int) {
	if n == 0 {
		return
	}
	h := s.conn
	h.grantLocked(n)
	s.owed += int64(n)
	s.taken += int64(n)
	if s.received || s.aborted || s.owed < s.limit/2 {
		return
	}
	if s.taken >= 2*s.limit && s.limit < http2StreamWindow {
		larger := min(2*s.limit, http2StreamWindow)
		s.owed += larger - s.limit
		s.limit, s.taken = larger, 0
	}
	h.output.Frames = http2.AppendWindowUpdate(h.output.Frames, s.id, int(s.owed))
	s.granted += s.owed
	s.owed = 0
	h.flushLocked()
}

// grantLocked lets the client send n more bytes on the connection.
func (h *http2ClientConn) grantLocked(n int) {
	if h.owed += int64(n); h.owed < http2Window/2 {
		return
	}
	h.output.Frames = http2.AppendWindowUpdate(h.output.Frames, 0, int(h.owed))
	h.received += h.owed
	h.owed = 0
	h.flushLocked()
}

// send sends the frames of head, data, and the frames of trailer. ends: the response
// ends with them. It waits until all are in conn.output.
func (s *http2Stream) send(head, data, trailer []byte, ends bool) error {
	h := s.conn
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.aborted {
		return errStreamAborted
	}
	s.moved = true
	s.answered = s.answered || len(head) > 0 && !s.exchange.response.Interim()
	h.output.Send(&s.sender, head, data, trailer, ends)
	h.output.Fill()
	h.flushLocked()
	for s.sender.IsSending() && !s.aborted {
		if s.moved || s.isInTurnLocked() {
			if s.inTunnel != nil {
				s.inTunnel.Touch()
			}
			s.moved, s.movedBefore = false, h.moved
			s.ArmWrite(s.server.sweeper.Now() + int64(s.writePause()))
		}
		s.delayed = true
		h.mu.Unlock()
		<-s.waits.writable
		due := s.waits.writeDue.Load() && s.WriteExpired(s.server.sweeper)
		h.mu.Lock()
		switch {
		case !due || !s.sender.IsSending():
		case s.Interrupted.Load():
			h.resetLocked(s, http2.Cancel)
		case s.moved || s.isInTurnLocked():
		case s.inTunnel != nil && s.writePause() > 0: // bytes have moved in the other direction
			s.ArmWrite(s.server.sweeper.Now() + int64(s.writePause()))
		default:
			h.resetLocked(s, http2.Cancel)
		}
	}
	s.WriteDeadline.Store(0)
	if !s.aborted {
		return nil
	}
	h.output.Drop(&s.sender) // it belongs to the exchange
	return errStreamAborted
}

// isInTurnLocked reports whether the stream waits for its turn only: the client has taken
// bytes of others since the write timeout was set.
func (s *http2Stream) isInTurnLocked() bool {
	return s.sender.IsQueued() && s.conn.moved != s.movedBefore
}

// abortLocked ends all waits of the stream.
func (s *http2Stream) abortLocked() {
	if s.aborted {
		return
	}
	s.aborted = true
	s.conn.output.Halt(&s.sender)
	if !s.options.KeepForGoneClients {
		s.gone.Store(true)
	}
	s.closeLocked()
	signal(s.waits.readable)
	signal(s.waits.writable)
}

// endedLocked records that one direction, received or sent, has ended.
func (s *http2Stream) endedLocked(direction *bool) {
	if *direction = true; direction == &s.received {
		s.conn.receiving--
	}
	if s.received && s.sent {
		s.conn.open--
	}
}

// closeLocked records that both directions have ended.
func (s *http2Stream) closeLocked() {
	if !s.received {
		s.conn.receiving--
	}
	if !s.received || !s.sent {
		s.received, s.sent = true, true
		s.conn.open--
	}
}

// resetLocked ends a stream whose request may be incomplete.
func (h *http2ClientConn) resetLocked(s *http2Stream, code http2.ErrorCode) {
	if !s.received {
		h.noteCanceledLocked(s.id)
	}
	h.conn.server.http2.resetsSent.Add(1)
	h.output.Frames = http2.AppendResetStream(h.output.Frames, s.id, code)
	s.abortLocked()
	h.flushLocked()
}

// end ends the stream after its request was served.
func (s *http2Stream) end() {
	h := s.conn
	s.Disarm()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case s.aborted:
	case s.inTunnel != nil && (!s.sent || !s.received): // RFC 8441, section 5
		h.resetLocked(s, http2.Cancel)
	case !s.sent: // the response is incomplete
		h.resetLocked(s, http2.InternalError)
	case !s.received: // the rest of the request is not needed
		h.resetLocked(s, http2.NoError)
	default:
		h.resets.Add(-1)
	}
	s.inTunnel = nil
	h.grantLocked(s.body.Drop())
	delete(h.streams, s.id)
	s.Resume()
	if h.broken || s.failed {
		s.Remove()
		if s.admitted {
			s.server.admission.leave(s.remote)
		}
	} else {
		h.free = append(h.free, s)
	}
	if h.paused != nil {
		close(h.paused)
		h.paused = nil
	}
	if len(h.streams) > 0 {
		if !h.partial && h.goAway == goAwayNone {
			h.conn.Arm(s.server.sweeper, idleSetDelay) // to drop the unused streams
		}
		return
	}
	if h.armLocked(); h.goAway == goAwayFinal && !h.flushing {
		h.wakeReader()
	}
}
