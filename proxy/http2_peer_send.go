package proxy

import (
	"errors"
	"runtime"
	"slices"

	"sluice/panics"
	"sluice/proxy/http2"
)

// queueLocked puts u behind the other streams that send.
func (c *http2PeerConn) queueLocked(u *http2Upstream) {
	u.sending = true
	c.queue = append(c.queue, u)
	c.fillLocked()
	c.flushLocked()
}

func (c *http2PeerConn) dequeueLocked(u *http2Upstream) {
	c.queue = slices.DeleteFunc(c.queue, func(other *http2Upstream) bool { return other == u })
}

// fillLocked moves frames of the streams in the queue to out, one of each in turn, as
// far as there is room and the peer's windows allow.
func (c *http2PeerConn) fillLocked() {
	for moved := true; moved; {
		moved = false
		kept := c.queue[:0]
		for _, u := range c.queue {
			if len(c.out) < http2OutputBytes && c.frameOfLocked(u) {
				moved = true
			}
			if u.sending {
				kept = append(kept, u)
			}
		}
		clear(c.queue[len(kept):])
		c.queue = kept
	}
}

// frameOfLocked moves a frame of u to out, and reports whether it did.
func (c *http2PeerConn) frameOfLocked(u *http2Upstream) bool {
	if u.isClosed() {
		return false
	}
	cut := http2.Spend(u.data, u.ends && len(u.tail) == 0, &u.window, &c.window)
	if cut.IsBlocked() {
		return false
	}
	c.out = cut.AppendFrame(c.out, u.id)
	u.data = cut.Rest
	if cut.IsLast() {
		c.out = appendBlock(c.out, u.tail, &c.tableSize)
		u.data, u.tail, u.sending = nil, nil, false
		u.sent = u.sent || u.ends
	}
	signal(u.waits.writable)
	return true
}

// flushLocked starts to send out.
func (c *http2PeerConn) flushLocked() {
	if c.fillLocked(); c.flushing || len(c.out) == 0 || c.err != nil {
		return
	}
	c.flushing = true
	c.work.Go(c.flush)
}

// flush sends out until it is empty. It yields first, so that the streams that can run
// add their frames: one write for many requests.
func (c *http2PeerConn) flush() {
	defer panics.Contain(panics.Peer, c.fail)
	runtime.Gosched()
	to := side{raw: c.wire.raw, entry: &c.sweepEntry, sweeper: c.transport.sweeper, timeout: http2PeerStall}
	for b := c.takeOutput(nil, 0, nil); b != nil; {
		n, err := c.writer.writeSealed(to, c.wire.tls, b)
		b = c.takeOutput(b, n, err)
	}
}

// takeOutput returns the frames to send next; nil: there are none, and flush ends. sent is
// nil or what was sent before, of which n bytes were written, with that error.
func (c *http2PeerConn) takeOutput(sent []byte, n int, err error) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if sent != nil {
		if c.spare = sent[:0]; n > 0 {
			c.written = c.taken
		}
		c.taken = c.written
		switch {
		case c.err != nil: // read has ended
			c.failLocked(errClosedEarly)
		case err != nil:
			c.stopSendingLocked()
		}
		c.fillLocked()
	}
	if len(c.out) > 0 && c.err == nil {
		b := c.out
		c.out, c.spare, c.control = c.spare[:0], nil, 0
		c.taken = c.next
		return b
	}
	c.flushing = false
	return nil
}

// stopSendingLocked is called when the peer takes no more bytes. Responses and a GOAWAY may
// have arrived before: read processes them, and then fails the streams that are left.
func (c *http2PeerConn) stopSendingLocked() {
	c.err = errClosedEarly
	for id, u := range c.streams {
		if id >= c.written {
			u.failLocked(errUnprocessed)
		}
	}
	c.wire.conn.CloseRead() // ends read when it has read what is there
}

// sendGoAwayLocked sends GOAWAY if it fits the socket buffer. err is why the connection ends.
func (c *http2PeerConn) sendGoAwayLocked(err error) {
	if c.flushing || len(c.out) > 0 {
		return
	}
	code := http2.NoError
	var failure *http2.Error
	if errors.As(err, &failure) {
		code = failure.Code
	}
	frame := http2.AppendGoAway(nil, 0, code)
	if c.wire.tls != nil {
		records := sealBuffers.Get().(*buffer)
		defer sealBuffers.Put(records)
		if frame, err = c.wire.tls.seal(frame, records); err != nil {
			return
		}
	}
	c.wire.raw.Control(func(fd uintptr) { send(fd, frame) })
}
