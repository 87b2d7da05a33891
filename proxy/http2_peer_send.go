package proxy

import (
	"errors"
	"runtime"

	"sluice/observe/panics"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
)

// Moved implements [http2.Owner]. conn.mu is held.
func (u *http2Upstream) Moved(_ int, _, ends bool) {
	u.sent = u.sent || ends
	signal(u.waits.writable)
}

// flushLocked starts to send output.
func (c *http2PeerConn) flushLocked() {
	if c.output.Fill(); c.flushing || len(c.output.Frames) == 0 || c.err != nil {
		return
	}
	c.flushing = true
	c.work.Go(c.flush)
}

// flush sends output until it is empty. It yields first, so that the streams that can run
// add their frames: one write for many requests.
func (c *http2PeerConn) flush() {
	defer panics.Contain(panics.Peer, c.fail)
	runtime.Gosched()
	to := socket.Side{Raw: c.wire.Raw, Entry: &c.SweepEntry, Sweeper: c.transport.sweeper, Timeout: http2PeerStall}
	for b := c.takeOutput(nil, 0, nil); b != nil; {
		n, err := c.writer.WriteSealed(to, c.wire.TLS, b)
		b = c.takeOutput(b, n, err)
	}
}

// takeOutput returns the frames to send next; nil: there are none, and flush ends. sent is
// nil or what was sent before, of which n bytes were written, with that error.
func (c *http2PeerConn) takeOutput(sent []byte, n int, err error) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if sent != nil {
		if c.output.Recycle(sent); n > 0 {
			c.written = c.taken
		}
		c.taken = c.written
		switch {
		case c.err != nil: // read has ended
			c.failLocked(socket.ErrClosedEarly)
		case err != nil:
			c.stopSendingLocked()
		}
		c.output.Fill()
	}
	if len(c.output.Frames) > 0 && c.err == nil {
		b := c.output.Take()
		c.taken = c.next
		return b
	}
	c.flushing = false
	return nil
}

// stopSendingLocked is called when the peer takes no more bytes. Responses and a GOAWAY may
// have arrived before: read processes them, and then fails the streams that are left.
func (c *http2PeerConn) stopSendingLocked() {
	c.err = socket.ErrClosedEarly
	for id, u := range c.streams {
		if id >= c.written {
			u.failLocked(errUnprocessed)
		}
	}
	c.wire.Conn.CloseRead() // ends read when it has read what is there
}

// sendGoAwayLocked sends GOAWAY if it fits the socket buffer. err is why the connection ends.
func (c *http2PeerConn) sendGoAwayLocked(err error) {
	if c.flushing || len(c.output.Frames) > 0 {
		return
	}
	code := http2.NoError
	var failure *http2.Error
	if errors.As(err, &failure) {
		code = failure.Code
	}
	frame := http2.AppendGoAway(nil, 0, code)
	if c.wire.TLS != nil {
		records := socket.SealBuffers.Get().(*socket.Buffer)
		defer socket.SealBuffers.Put(records)
		if frame, err = c.wire.TLS.Seal(frame, records); err != nil {
			return
		}
	}
	c.wire.Raw.Control(func(fd uintptr) { socket.Send(fd, frame) })
}
