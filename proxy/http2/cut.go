package http2

// A Cut is what a stream sends next of a body.
type Cut struct {
	Payload   []byte // of a DATA frame
	Rest      []byte // of the body, for later frames
	EndStream bool   // nothing follows Payload
}

// Spend cuts the next DATA frame from body: at most MaxFrameBytes, and as much as both
// flow-control windows allow, from which it takes that. A window is negative after the receiver has lowered
// SETTINGS_INITIAL_WINDOW_SIZE by more than was left of it (RFC 9113, section 6.9.2); then it
// allows nothing. ends: the stream ends with body. That needs no window.
func Spend(body []byte, ends bool, stream, connection *Window) Cut {
	n := min(Window(len(body)), max(0, min(*stream, *connection, MaxFrameBytes)))
	*stream -= n
	*connection -= n
	return Cut{Payload: body[:n], Rest: body[n:], EndStream: ends && int(n) == len(body)}
}

// IsBlocked reports whether the windows allow nothing of a body that is not empty.
func (c *Cut) IsBlocked() bool { return len(c.Payload) == 0 && len(c.Rest) > 0 }

// IsLast reports whether nothing of the body is left.
func (c *Cut) IsLast() bool { return len(c.Rest) == 0 }

// AppendFrame appends the DATA frame, or nothing if it would be empty without an end.
func (c *Cut) AppendFrame(out []byte, stream uint32) []byte {
	if len(c.Payload) == 0 && !c.EndStream {
		return out
	}
	frame := FrameHeader{Length: len(c.Payload), Type: FrameData, StreamID: stream}
	if c.EndStream {
		frame.Flags = FlagEndStream
	}
	return append(AppendFrameHeader(out, frame), c.Payload...)
}
