package http2

// A cut is what a stream sends next of a body.
type cut struct {
	payload   []byte // of a DATA frame
	rest      []byte // of the body, for later frames
	endStream bool   // nothing follows payload
}

// spend cuts the next DATA frame from body: at most MaxFrameBytes, and as much as both flow-control
// windows allow, from which it takes that. A window is negative after the receiver has lowered
// SETTINGS_INITIAL_WINDOW_SIZE by more than was left of it (RFC 9113, section 6.9.2); then it
// allows nothing. ends: the stream ends with body. That needs no window.
func spend(body []byte, ends bool, stream, connection *Window) cut {
	n := min(Window(len(body)), max(0, min(*stream, *connection, MaxFrameBytes)))
	*stream -= n
	*connection -= n
	return cut{payload: body[:n], rest: body[n:], endStream: ends && int(n) == len(body)}
}

// isBlocked reports whether the windows allow nothing of a body that is not empty.
func (c *cut) isBlocked() bool { return len(c.payload) == 0 && len(c.rest) > 0 }

// isLast reports whether nothing of the body is left.
func (c *cut) isLast() bool { return len(c.rest) == 0 }

// appendFrame appends the DATA frame, or nothing if it would be empty without an end.
func (c *cut) appendFrame(out []byte, stream uint32) []byte {
	if len(c.payload) == 0 && !c.endStream {
		return out
	}
	frame := FrameHeader{Length: len(c.payload), Type: FrameData, StreamID: stream}
	if c.endStream {
		frame.Flags = FlagEndStream
	}
	return append(AppendFrameHeader(out, frame), c.payload...)
}

// A Window is how many bytes of bodies the other side accepts, on a stream or on a connection. It
// may be negative: see spend.
type Window int64

var errWindow = &Error{FlowControlError, "window exceeds 2³¹-1"}

// Enlarge adds an increment, or a change of SETTINGS_INITIAL_WINDOW_SIZE, which may be negative.
// Above MaxWindow it returns an error, of the stream or the connection of the window (RFC 9113,
// section 6.9.1).
func (w *Window) Enlarge(change Window) *Error {
	if *w += change; *w > MaxWindow {
		return errWindow
	}
	return nil
}
