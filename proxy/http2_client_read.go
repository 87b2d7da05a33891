package proxy

import (
	"sluice/proxy/http2"
	"sluice/proxy/socket"
)

var (
	errPreface       = &http2.Error{Code: http2.ProtocolError, Reason: "invalid connection preface"}
	errInadequateTLS = &http2.Error{Code: http2.InadequateSecurity, Reason: "cipher suite is prohibited"}
	errStreamEnded   = &http2.Error{Code: http2.StreamClosed, Reason: "frame after the end of its stream"}
	errPriorityBytes = &http2.Error{Code: http2.FrameSizeError, Reason: "PRIORITY is not 5 bytes long"}
	errFlood         = &http2.Error{Code: http2.EnhanceYourCalm, Reason: "too many frames beside requests"}
	errResets        = &http2.Error{Code: http2.EnhanceYourCalm, Reason: "too many streams end early"}
)

// maxTrailerBytes bounds the trailer section of a request, as in HTTP/1.1.
const maxTrailerBytes = 4 << 10

// readable is called when the client may have sent bytes. It processes all frames that
// have arrived, and reports whether raw.Read ends.
func (h *http2ClientConn) readable(fd uintptr) bool {
	c := h.conn
	c.Wake()
	for {
		if h.in == nil {
			h.in = frameBuffers.Get().(*socket.Buffer)
		}
		space := h.in.Bytes[h.end:]
		n, err := c.Receive(fd, space)
		switch {
		case err == socket.ErrWouldBlock:
			h.park()
			h.endGoAwayIfDue()
			return false
		case err != nil || n == 0:
			h.ended = true
			return true
		}
		h.end += n
		if !h.process() || h.waits {
			return true
		}
		// The socket is empty: see clientConn.readable. Another read finds a client that
		// has closed the connection within a request, or after GOAWAY.
		if n < len(space) && c.TLS == nil && !h.isPartial() && !h.expectsMore() {
			h.park()
			return false
		}
	}
}

// isPartial reports whether a part of the preface, a frame or a field block has arrived,
// or the first SETTINGS is awaited.
func (h *http2ClientConn) isPartial() bool {
	return h.start < h.end || h.stage != stageFrames || h.block.IsOpen()
}

// park prepares a wait for the client.
func (h *http2ClientConn) park() {
	if h.start == h.end {
		h.releaseInput()
	}
	partial := h.isPartial()
	h.mu.Lock()
	defer h.mu.Unlock()
	if partial && (!h.partial || h.progressed) {
		h.conn.Arm(h.conn.server.sweeper, h.conn.options.Timeouts.Head)
	}
	if h.progressed = false; partial != h.partial || h.idle {
		h.partial = partial
		h.armLocked()
	}
}

// process processes the frames in in, or those before one that waits for the end of a
// stream: see waits. It returns false if the connection must be closed: failure is set.
func (h *http2ClientConn) process() bool {
	h.waits = false
	if h.stage == stagePreface && !h.readPreface() {
		return h.failure == nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.conn.server.sweeper.Now()
	h.overhead.Leak(now, http2OverheadTime)
	h.resets.Leak(now, http2ResetTime)
	for h.failure == nil && h.end-h.start >= http2.FrameHeaderBytes {
		frame := http2.ParseFrameHeader(h.in.Bytes[h.start:])
		if frame.Length > http2.MaxFrameBytes {
			h.failure = http2.ErrFrameTooLong
			break
		}
		end := h.start + http2.FrameHeaderBytes + frame.Length
		if end > h.end {
			break
		}
		if frame.Type == http2.FrameHeaders && h.mustPauseLocked(frame.StreamID) {
			h.waits, h.paused = true, make(chan struct{})
			break
		}
		payload := h.in.Bytes[h.start+http2.FrameHeaderBytes : end]
		h.start = end
		if h.failure = h.frameLocked(&frame, payload); h.failure == nil {
			h.failure = h.countLocked(&frame)
		}
		h.progressed = h.progressed || !h.block.IsOpen()
	}
	if h.start > 0 {
		h.end, h.start = copy(h.in.Bytes, h.in.Bytes[h.start:h.end]), 0
	}
	h.output.Fill()
	h.flushLocked()
	return h.failure == nil && !h.broken
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
	h.stage = stageSettings
	return true
}

// mustPauseLocked reports whether a new stream has to wait for the end of another one:
// as many are being served as may be open, since some were reset and have not ended. So
// a client that resets streams cannot have more work done than one that does not.
func (h *http2ClientConn) mustPauseLocked(id uint32) bool {
	return id > h.last && len(h.streams) >= http2Streams && h.open < http2Streams
}

// expectsMore reports whether a request has not arrived completely, or the client is to close the
// connection.
func (h *http2ClientConn) expectsMore() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.receiving > 0 || h.goAway != goAwayNone
}

// processAll is process that also waits for the ends of streams that it needs.
func (h *http2ClientConn) processAll() bool {
	for h.process() {
		if !h.waits {
			return true
		}
		h.mu.Lock()
		paused := h.paused
		h.mu.Unlock()
		if paused != nil { // else a stream has ended meanwhile
			<-paused
		}
	}
	return false
}

// countLocked bounds the frames beside heads and bodies.
func (h *http2ClientConn) countLocked(frame *http2.FrameHeader) *http2.Error {
	useful := h.sentBytes
	h.sentBytes = 0
	switch frame.Type {
	case http2.FrameData, http2.FrameHeaders, http2.FrameContinuation:
		useful += int64(frame.Length)
	}
	if h.overhead.Add(int64(http2.FrameHeaderBytes+frame.Length)-http2OverheadRatio*useful) > http2OverheadBytes {
		return errFlood
	}
	return nil
}
