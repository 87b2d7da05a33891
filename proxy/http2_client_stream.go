package proxy

import (
	"net/netip"
	"os"
	"slices"
	"time"

	"sluice/observe/panics"
	"sluice/proxy/http2"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/proxy/upstream"
	"sluice/route/places"
)

// An http2Stream is a stream of an http2ClientConn, and the downstream of its exchange. It is
// reused for later streams of the connection. All of a connection but one count as
// connections for the limits of the server: a request takes as much memory.
type http2Stream struct {
	streamSide
	client   client
	stream   http2.Stream
	conn     *http2ClientConn
	exchange *exchange

	onServe func() // serve as a value: creating it allocates
	refused error  // why the request is refused, or nil
	failed  bool   // it has panicked, and is not used again
	opened  int64  // coarse time

	// connect does not change while the stream is served: the request is an extended
	// CONNECT (RFC 8441).
	connect  bool
	inTunnel *socket.Tunnel // that the stream is an end of; nil: none

	// conn.Mu guards the fields below.
	pending  bool   // it is in conn.pending
	answered bool   // a final response has begun
	trailer  []byte // field lines of the request
	expected int64  // bytes that Content-Length announces and that have not arrived; -1: unknown
}

// takeStreamLocked returns an unused stream, or nil: there are too many.
func (h *http2ClientConn) takeStreamLocked() *http2Stream {
	if n := len(h.free); n > 0 {
		s := h.free[n-1]
		h.free = h.free[:n-1]
		return s
	}
	c := h.conn
	if h.counted > 0 && !c.client.server.admitStream(c.client.remote, h.block) {
		return nil
	}
	h.counted++
	s := &http2Stream{
		client: client{
			Client: upstream.Client{Shard: c.client.Shard}, server: c.client.server, listener: c.client.listener, remote: c.client.remote, address: c.client.address,
			version: version2, certificate: c.client.certificate, session: c.client.session,
		},
		conn: h,
	}
	s.client.downstream, s.client.Presence, s.client.Entry.Owner, s.onServe = s, s, s, s.serve
	s.stream.Init(&h.protocol, s, &s.client.Entry, c.client.Shard)
	return s
}

// admitStream reports whether there is room for another stream of a client: it counts as a
// connection, because it may need one to a peer, and takes memory.
func (s *Server) admitStream(remote netip.Addr, block places.Block) bool {
	if !s.streamMemory.Take(block, http2StreamBytes, s.options.Load().Limits.StreamBytes) {
		return false
	}
	if s.admission.admit(remote, false) {
		return true
	}
	s.streamMemory.Give(block, http2StreamBytes)
	return false
}

// dropFreeLocked releases the unused streams.
func (h *http2ClientConn) dropFreeLocked() {
	for _, s := range h.free {
		h.dropLocked(s)
	}
	h.free = nil
}

// dropLocked releases a stream that is not used again.
func (h *http2ClientConn) dropLocked(s *http2Stream) {
	s.client.Entry.Remove()
	if h.counted--; h.counted > 0 {
		s.client.server.admission.leave(s.client.remote)
		s.client.server.streamMemory.Give(h.block, http2StreamBytes)
	}
}

// prepare makes s ready for another request.
func (s *http2Stream) prepare() {
	s.opened = s.client.server.sweeper.Now()
	s.answered, s.trailer, s.expected = false, nil, -1
	s.refused, s.connect = nil, false
	s.client.Gone.Store(false)
	s.client.shed.Store(false)
	s.exchange = streamExchanges.Get().(*exchange)
	s.exchange.request.open(&s.client)
}

// serve serves the request of the stream.
func (s *http2Stream) serve() {
	defer s.conn.protocol.Work.Done()
	defer panics.Contain(panics.Stream, s.fail)
	http2.GrowStack(nil)
	x := s.exchange
	if err := s.scan(); err == nil {
		x.serve()
	} else {
		x.refuseUnscanned(err, refusal.BodyTimeout)
	}
	s.release()
	s.end()
}

// release releases the exchange.
func (s *http2Stream) release() {
	s.exchange.close()
	streamExchanges.Put(s.exchange)
	s.exchange = nil
}

// scan scans the head, and reads a body that fits the buffer of the exchange.
func (s *http2Stream) scan() error {
	if s.refused != nil {
		return s.refused
	}
	return scanStream(s.exchange, s, s.connect)
}

// firstMessageWait is how long a call of gRPC waits for its first message, if it does not
// arrive with the head: some clients write both separately.
const firstMessageWait = 5 * time.Millisecond

// wholeBody implements streamBody, for a call of gRPC. So a unary one, which announces no length,
// can be replayed.
func (s *http2Stream) wholeBody() int64 {
	var none socket.Buffers
	whole := int64(-1)
	s.stream.Wait(&none, func() bool {
		length := s.stream.Body.Length()
		if s.stream.Received && !s.stream.Stopped && len(s.trailer) == 0 {
			whole = int64(length)
		}
		return s.stream.Received || s.stream.Stopped || length > 0
	}, http2.Wakes{Patience: firstMessageWait})
	return whole
}

// awaitBody implements streamBody.
func (s *http2Stream) awaitBody(b *socket.Buffers, timeout time.Duration) error {
	s.client.Entry.Arm(s.client.server.sweeper, timeout)
	defer s.client.Entry.Disarm()
	return s.stream.Wait(b, s.bodyArrived, http2.Wakes{})
}

// bodyArrived reports whether takeBody has something, or the end, of a stream that goes on.
func (s *http2Stream) bodyArrived() bool {
	return !s.stream.Stopped && (s.stream.Received || !s.stream.Body.Empty())
}

// takeBody implements streamBody.
func (s *http2Stream) takeBody(b []byte) (n int, last bool, trailer []byte, err error) {
	s.conn.protocol.Mu.Lock()
	defer s.conn.protocol.Mu.Unlock()
	n, last = s.stream.TakeLocked(b)
	return n, last, s.trailer, nil
}

// send sends the frames of head, data, and the frames of trailer. ends: the response
// ends with them. It waits until all are in the output of the connection.
func (s *http2Stream) send(head, data, trailer []byte, ends bool) error {
	s.conn.protocol.Mu.Lock()
	defer s.conn.protocol.Mu.Unlock()
	s.answered = s.answered || len(head) > 0 && !s.exchange.answer.response.Interim()
	err := s.stream.SendLocked(head, data, trailer, ends)
	if err == os.ErrDeadlineExceeded {
		s.stream.ResetLocked(http2.Cancel, socket.ErrClosedEarly)
		return socket.ErrClosedEarly
	}
	return err
}

// end ends the stream after its request was served.
func (s *http2Stream) end() {
	h := s.conn
	s.client.Entry.Disarm()
	h.protocol.Mu.Lock()
	defer h.protocol.Mu.Unlock()
	switch {
	case s.stream.Stopped:
	case s.inTunnel != nil && (!s.stream.Sent || !s.stream.Received): // RFC 8441, section 5
		s.stream.ResetLocked(http2.Cancel, socket.ErrClosedEarly)
	case !s.stream.Sent: // the response is incomplete
		s.stream.ResetLocked(http2.InternalError, socket.ErrClosedEarly)
	case !s.stream.Received: // the rest of the request is not needed
		s.stream.ResetLocked(http2.NoError, socket.ErrClosedEarly)
	default:
		h.resets.Add(-1)
	}
	s.inTunnel = nil
	s.stream.CloseLocked()
	h.MayHold(h.protocol.Held)
	s.client.Entry.Resume()
	if h.protocol.Err != nil || s.failed {
		h.dropLocked(s)
	} else {
		h.free = append(h.free, s)
	}
	if len(h.pending) > 0 {
		next := h.pending[0]
		h.pending = slices.Delete(h.pending, 0, 1)
		h.startLocked(next)
	}
	if len(h.protocol.Streams) > 0 {
		if !h.partial && h.goAway != goAwayAnnounced {
			// To drop the unused streams.
			h.conn.client.Entry.Arm(s.client.server.sweeper, idleSetDelay)
		}
		return
	}
	if h.armLocked(); h.goAway == goAwayFinal && !h.protocol.Flushing {
		h.conn.wire.WakeReader()
	}
}
