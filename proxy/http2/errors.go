package http2

// Faults of the other side, in both roles. They end the connection.
var (
	ErrNoSettings   = &Error{Code: ProtocolError, Reason: "first frame is not SETTINGS"}
	ErrFrameTooLong = &Error{Code: FrameSizeError, Reason: "frame exceeds 16 KiB"}
	errContinuation = &Error{Code: ProtocolError, Reason: "CONTINUATION does not follow its HEADERS"}
	errBlockTooLong = &Error{Code: EnhanceYourCalm, Reason: "field block is too long or in too many frames"}
	ErrStreamID     = &Error{Code: ProtocolError, Reason: "stream id is even, or frame is for a stream that was not opened"}
	ErrDependency   = &Error{Code: ProtocolError, Reason: "stream depends on itself"}
	ErrTooMuchData  = &Error{Code: FlowControlError, Reason: "DATA exceeds its window"}
	ErrNoIncrement  = &Error{Code: ProtocolError, Reason: "WINDOW_UPDATE of 0"}
)
