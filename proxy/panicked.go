package proxy

import (
	"time"

	"sluice/observe/panics"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
)

// What a goroutine does after it has panicked. It gives back what is counted: places, tokens,
// connections, entries of the sweeper. Memory that it has used is left to the garbage
// collector, since something may still refer to it.

// errPanicked is the error of what another goroutine waits for.
var errPanicked = panics.Err

// contained calls f, which may panic.
func contained(at panics.Place, f func()) {
	defer panics.Contain(at, nil)
	f()
}

// fail ends the connection. It answers the request of HTTP/1 that it serves, if any.
func (c *clientConn) fail() {
	if c.closed {
		return
	}
	c.reading, c.cutOff, c.lifetime.Over = false, true, true
	if x := c.exchange; x != nil {
		answered := x.fail()
		c.exchange = nil
		c.reset, c.linger = !answered, answered
	}
	if c.http2 != nil {
		contained(panics.Connection, c.http2.failReading)
	}
	c.end()
}

// fail ends the exchange. It reports whether the client got a complete answer.
func (x *exchange) fail() (answered bool) {
	x.releaseAll(panics.Exchange)
	contained(panics.Exchange, func() {
		switch {
		case !x.serving:
		case !x.answer.begun:
			answered = x.refuse(refusal.Internal)
		default:
			x.answer.interrupted = refusal.Internal.Reason
			x.request.client.downstream.cut(-1)
			x.finish()
		}
	})
	return answered
}

// releaseAll gives back what the exchange holds, as far as it can.
func (x *exchange) releaseAll(at panics.Place) {
	contained(at, x.answer.releaseHeld)
	contained(at, x.body.upload.wait)
	contained(at, func() { x.body.leaveBody() })
}

// fail lets the exchange fail whose body cannot be sent.
func (l *upload) fail() {
	l.err = errPanicked
	l.broken.Store(true)
	l.up.Interrupt()
}

// fail ends the copy.
func (m *mirrored) fail() {
	contained(panics.Mirror, m.answer.releaseHeld)
	if m.mirror != nil {
		m.mirror.Copies.End(m.sender.Shard, refusal.Internal.Status, time.Since(m.request.startTime), false)
	}
}

// fail ends a stream: it answers the request, or resets the stream. If the panic was in the
// code of the connection, it ends the connection.
func (s *http2Stream) fail() {
	h := s.conn
	s.failed = true
	if x := s.exchange; x != nil && !h.protocol.Mu.Torn() {
		x.fail()
	} else if x != nil {
		x.releaseAll(panics.Stream)
	}
	if h.protocol.Mu.Torn() {
		contained(panics.Stream, h.OnPanic)
	}
	contained(panics.Stream, s.end)
	if h.protocol.Mu.Torn() { // by the end too
		contained(panics.Stream, h.OnPanic)
	}
}

// fail ends a stream: it answers the request, or resets the stream.
func (s *http3Stream) fail() {
	s.failed = true
	if s.exchange != nil {
		s.exchange.fail()
	}
	contained(panics.Stream, s.end)
}

// OnPanic implements [http2.Role]: it ends the connection and its streams.
func (h *http2ClientConn) OnPanic() {
	h.protocol.Mu.Lock()
	defer h.protocol.Mu.Unlock()
	h.protocol.Err, h.protocol.Output.Frames = errPanicked, nil
	h.conn.wire.WakeReader()
	for _, s := range h.protocol.Streams {
		contained(panics.Stream, func() { s.StopLocked(socket.ErrClosedEarly) })
	}
}

// failReading is OnPanic for the goroutine that reads. It waits for the streams.
func (h *http2ClientConn) failReading() {
	contained(panics.Connection, h.OnPanic)
	h.protocol.Work.Wait()
	h.protocol.Mu.Lock()
	defer h.protocol.Mu.Unlock()
	h.dropFreeLocked()
}
