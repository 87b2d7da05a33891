package http2

// Faults of the other side, in both roles. They end the connection.
var (
	errNoSettings   = &Error{Code: ProtocolError, Reason: "first frame is not SETTINGS"}
	errFrameTooLong = &Error{Code: FrameSizeError, Reason: "frame exceeds 16 KiB"}
	errContinuation = &Error{Code: ProtocolError, Reason: "CONTINUATION does not follow its HEADERS"}
	errBlockTooLong = &Error{Code: EnhanceYourCalm, Reason: "field block is too long or in too many frames"}
	ErrStreamID     = &Error{Code: ProtocolError, Reason: "stream id is even, or frame is for a stream that was not opened"}
	errDependency   = &Error{Code: ProtocolError, Reason: "stream depends on itself"}
	errTooMuchData  = &Error{Code: FlowControlError, Reason: "DATA exceeds its window"}
	errNoIncrement  = &Error{Code: ProtocolError, Reason: "WINDOW_UPDATE of 0"}
	errFlood        = &Error{Code: EnhanceYourCalm, Reason: "too many frames beside heads and bodies"}
)
