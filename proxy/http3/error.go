package http3

import "fmt"

// An ErrorCode ends a connection or a stream (RFC 9114, section 8.1, and RFC 9204, section 6).
type ErrorCode uint64

const (
	NoError              ErrorCode = 0x100
	InternalError        ErrorCode = 0x102
	StreamCreationError  ErrorCode = 0x103
	ClosedCriticalStream ErrorCode = 0x104
	FrameUnexpected      ErrorCode = 0x105
	FrameError           ErrorCode = 0x106
	ExcessiveLoad        ErrorCode = 0x107
	IDError              ErrorCode = 0x108
	SettingsError        ErrorCode = 0x109
	MissingSettings      ErrorCode = 0x10a
	RequestRejected      ErrorCode = 0x10b
	RequestCancelled     ErrorCode = 0x10c
	RequestIncomplete    ErrorCode = 0x10d
	MessageError         ErrorCode = 0x10e

	DecompressionFailed ErrorCode = 0x200
	EncoderStreamError  ErrorCode = 0x201
	DecoderStreamError  ErrorCode = 0x202
)

// An Error is a fault of the client. It ends the connection.
type Error struct {
	Code   ErrorCode
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("HTTP/3: %s (%#x)", e.Reason, uint64(e.Code)) }

// A StreamError is a fault of the client that ends its stream only.
type StreamError struct {
	Code   ErrorCode
	Reason string
}

func (e *StreamError) Error() string {
	return fmt.Sprintf("HTTP/3: %s (%#x)", e.Reason, uint64(e.Code))
}

var (
	errFrameUnexpected = &Error{FrameUnexpected, "a frame where it is not allowed"}
	errTruncated       = &Error{FrameError, "a stream ends within a frame"}
	errFrameLength     = &Error{FrameError, "a frame with a wrong length"}
	errDecompression   = &Error{DecompressionFailed, "malformed field section"}
	errCriticalClosed  = &Error{ClosedCriticalStream, "a critical stream is closed"}
	errSecondStream    = &Error{StreamCreationError, "a second stream of a type"}
	errPushStream      = &Error{StreamCreationError, "a push stream of a client"}
	errTooManyStreams  = &Error{ExcessiveLoad, "too many streams of unknown types"}
	errMissingSettings = &Error{MissingSettings, "the control stream does not begin with SETTINGS"}
	errSettings        = &Error{SettingsError, "a setting that is repeated or not allowed"}
	errTooManySettings = &Error{ExcessiveLoad, "too many settings"}
	errID              = &Error{IDError, "an id that is not allowed"}
	errEncoder         = &Error{EncoderStreamError, "an instruction for a dynamic table without capacity"}
	errDecoder         = &Error{DecoderStreamError, "an instruction about a dynamic table without capacity"}

	errIncomplete = &StreamError{RequestIncomplete, "a stream ends before its request"}
)
