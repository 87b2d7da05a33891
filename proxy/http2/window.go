package http2

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
