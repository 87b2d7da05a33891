package proxy

import (
	"sluice/proxy/http2"
	"sluice/proxy/socket"
)

var (
	errPreface       = &http2.Error{Code: http2.ProtocolError, Reason: "invalid connection preface"}
	errInadequateTLS = &http2.Error{Code: http2.InadequateSecurity, Reason: "cipher suite is prohibited"}
	errStreamEnded   = &http2.Error{Code: http2.StreamClosed, Reason: "frame after the end of its stream"}
	errResets        = &http2.Error{Code: http2.EnhanceYourCalm, Reason: "too many streams end early"}
)

// maxTrailerBytes bounds the trailer section of a request, as in HTTP/1.1.
const maxTrailerBytes = 4 << 10

// readable is called when the client may have sent bytes. It processes all frames that
// have arrived, and reports whether raw.Read ends.
func (h *http2ClientConn) readable(fd uintptr) bool {
	c := h.conn
	c.wire.Wake()
	for first := true; ; first = false {
		if h.in == nil {
			h.in = frameBuffers.Get().(*socket.Buffer)
		}
		space := h.in.Bytes[h.end:]
		n, err := c.wire.Receive(fd, space)
		switch {
		case err == socket.ErrWouldBlock:
			// With TLS, only the first call must have asked the socket.
			h.park(first || c.wire.TLS == nil)
			h.endGoAwayIfDue()
			return false
		case err != nil || n == 0:
			h.ended = true
			return true
		}
		h.end += n
		if !h.process() {
			return true
		}
		// The socket is empty: see clientConn.readable. Another read finds a client that
		// has closed the connection within a request, or after GOAWAY. During a response,
		// it is made after a moment without a frame.
		if n < len(space) && c.wire.TLS == nil && !h.hasPartial() && !h.expectsMore() {
			h.park(false)
			return false
		}
	}
}

// hasPartial reports whether a part of the preface, a frame or a field block has arrived,
// or the first SETTINGS is awaited.
func (h *http2ClientConn) hasPartial() bool {
	return h.start < h.end || h.protocol.IsPartial()
}

// park prepares a wait for the client. open: a read has found no end of the connection.
func (h *http2ClientConn) park(open bool) {
	if h.start == h.end {
		h.releaseInput()
	}
	partial := h.hasPartial()
	h.protocol.Mu.Lock()
	defer h.protocol.Mu.Unlock()
	if partial && (!h.partial || h.protocol.Progressed) {
		h.conn.client.Entry.Arm(h.conn.client.server.sweeper, h.conn.client.options.Timeouts.Head)
	}
	if h.protocol.Progressed = false; partial != h.partial || h.idle {
		h.partial = partial
		h.armLocked()
	}
	if !open && !partial && h.goAway != goAwayAnnounced && len(h.protocol.Streams) > 0 {
		h.conn.client.Entry.Arm(h.conn.client.server.sweeper, idleSetDelay)
	}
}

// process processes the frames in in. It returns false if the connection must be closed: failure is
// set.
func (h *http2ClientConn) process() bool {
	if !h.prefaced && !h.readPreface() {
		return h.failure == nil
	}
	if h.failure != nil {
		return false
	}
	h.protocol.Mu.Lock()
	defer h.protocol.Mu.Unlock()
	now := h.conn.client.server.sweeper.Now()
	h.resets.Leak(now, http2ResetTime)
	var taken int
	taken, h.failure = h.protocol.ProcessLocked(h.in.Bytes[h.start:h.end], now)
	if h.start += taken; h.start > 0 {
		h.end, h.start = copy(h.in.Bytes, h.in.Bytes[h.start:h.end]), 0
	}
	return h.failure == nil && h.protocol.Err == nil
}

// readPreface reports whether the preface has arrived.
func (h *http2ClientConn) readPreface() bool {
	b := h.in.Bytes[h.start:h.end]
	n := min(len(b), len(http2.Preface))
	if string(b[:n]) != http2.Preface[:n] {
		h.failure = errPreface
		return false
	}
	if n < len(http2.Preface) {
		return false
	}
	h.start += n
	h.prefaced = true
	return true
}

// expectsMore reports whether a request has not arrived completely, or the client is to close the
// connection.
func (h *http2ClientConn) expectsMore() bool {
	h.protocol.Mu.Lock()
	defer h.protocol.Mu.Unlock()
	return h.protocol.Receiving > 0 || h.goAway != goAwayNone
}
