package proxy

import (
	"sync"
	"sync/atomic"
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

// A stateMutex is a mutex that notes whether a panic has left what it guards half changed.
type stateMutex struct {
	sync.Mutex
	torn atomic.Bool
}

// Unlock unlocks m. It notes a panic if it was deferred.
func (m *stateMutex) Unlock() {
	if value := recover(); value != nil {
		m.torn.Store(true)
		m.Mutex.Unlock()
		panic(value)
	}
	m.Mutex.Unlock()
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
func (x *httpExchange) fail() (answered bool) {
	contained(panics.Exchange, x.releaseHeld)
	contained(panics.Exchange, x.upload.wait)
	contained(panics.Exchange, x.leaveBody)
	contained(panics.Exchange, func() {
		switch {
		case !x.serving:
		case !x.begun:
			answered = x.refuse(refusal.Internal)
		default:
			x.interrupted = refusal.Internal.Reason
			x.client.downstream.cut()
			x.account()
		}
	})
	return answered
}

// releaseHeld gives back what is counted.
func (x *httpExchange) releaseHeld() {
	defer x.dropEncoder()
	defer x.abandonContenders()
	if u := x.held; u != nil {
		x.finish(u, false)
	}
}

// fail lets the exchange fail whose body cannot be sent.
func (l *upload) fail() {
	l.err = errPanicked
	l.broken.Store(true)
	l.up.Interrupt()
}

// fail ends the copy.
func (m *mirrored) fail() {
	contained(panics.Mirror, m.releaseHeld)
	if m.mirror != nil {
		m.mirror.Copies.End(m.sender.shard, refusal.Internal.Status, time.Since(m.startTime), false)
	}
}

// fail ends a stream: it answers the request, or resets the stream. If the panic was in the
// code of the connection, it ends the connection.
func (s *http2Stream) fail() {
	h := s.conn
	s.failed = true
	if x := s.exchange; x != nil && !h.mu.torn.Load() {
		x.fail()
	} else if x != nil {
		contained(panics.Stream, x.releaseHeld)
		contained(panics.Stream, x.upload.wait)
		contained(panics.Stream, x.leaveBody)
	}
	if h.mu.torn.Load() {
		contained(panics.Stream, h.fail)
	}
	contained(panics.Stream, s.end)
	if h.mu.torn.Load() { // by the end too
		contained(panics.Stream, h.fail)
	}
}

// fail ends the connection and its streams.
func (h *http2ClientConn) fail() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken, h.output.Frames = true, nil
	h.wakeReader()
	for _, s := range h.streams {
		contained(panics.Stream, s.abortLocked)
	}
}

// failReading is fail for the goroutine that reads. It waits for the streams.
func (h *http2ClientConn) failReading() {
	contained(panics.Connection, h.fail)
	h.work.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropFreeLocked()
}

// fail ends the connection and its streams: the goroutine that sends has panicked. The one
// that reads ends then.
func (c *http2PeerConn) fail() {
	c.wire.Conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushing = false
	c.failLocked(socket.ErrClosedEarly)
}
