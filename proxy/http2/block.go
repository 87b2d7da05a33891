package http2

import (
	"sluice/proxy/fields"
	"sluice/proxy/http1"
)

// Faults in the field blocks of the other side. They end the connection.
var (
	errCompression = &Error{CompressionError, "malformed field block"}
	// ErrListTooLong means that a field list is longer than the decoder accepts. The decoder
	// is in order: the error may be one of the stream only.
	ErrListTooLong = &Error{EnhanceYourCalm, "field list is too long"}
	errExpansion   = &Error{EnhanceYourCalm, "names in a field block make far more text than it has"}
)

// errorOf returns the error of a connection for one of its decoder.
func errorOf(err error) *Error {
	switch err {
	case nil:
		return nil
	case fields.ErrListTooLong:
		return ErrListTooLong
	case fields.ErrExpansion:
		return errExpansion
	}
	return errCompression
}

// A fieldBlock puts the field blocks of a connection together: HEADERS and the CONTINUATION
// frames that follow it. Both roles use it.
type fieldBlock struct {
	maxBytes  int // of a block in several frames, encoded
	maxFrames int // CONTINUATION frames of a block

	stream uint32 // of the block that continues; 0: none
	ends   bool   // the last block ends its stream
	bytes  []byte // of the block that continues
	frames int    // its CONTINUATION frames
}

// isOpen reports whether a CONTINUATION must follow.
func (b *fieldBlock) isOpen() bool { return b.stream != 0 }

// check checks the header of any frame, and that no frame interrupts a block.
func (b *fieldBlock) check(frame *FrameHeader) *Error {
	if continues := frame.Type == FrameContinuation; continues != b.isOpen() || continues && frame.StreamID != b.stream {
		return errContinuation
	}
	return frame.Check()
}

// take takes HEADERS or CONTINUATION that check has accepted. If the block is whole, it returns
// the block, which is valid until the next call, and ends is set.
func (b *fieldBlock) take(frame *FrameHeader, payload []byte) (block []byte, whole bool, err *Error) {
	if frame.Type == FrameHeaders {
		block, dependency, err := frame.Unpad(payload)
		switch {
		case err != nil:
			return nil, false, err
		case dependency == frame.StreamID:
			return nil, false, errDependency
		}
		if b.ends = frame.Has(FlagEndStream); frame.Has(FlagEndHeaders) {
			return block, true, nil
		}
		b.stream, b.frames, b.bytes = frame.StreamID, 0, append([]byte(nil), block...)
		return nil, false, nil
	}
	if b.frames++; b.frames > b.maxFrames || len(b.bytes)+len(payload) > b.maxBytes {
		return nil, false, errBlockTooLong
	}
	b.bytes = append(b.bytes, payload...)
	if !frame.Has(FlagEndHeaders) {
		return nil, false, nil
	}
	block, b.bytes, b.stream = b.bytes, nil, 0
	return block, true, nil
}

// AppendTrailer appends the frames of a trailer section, and nothing for an empty one: then
// DATA ends the stream.
func AppendTrailer(out, section []byte, id uint32) []byte {
	if len(section) == 0 {
		return out
	}
	start := len(out)
	out = append(out, make([]byte, FrameHeaderBytes)...)
	for line := range http1.Lines(section) {
		out = fields.AppendHPACKLine(out, line)
	}
	if len(out) == start+FrameHeaderBytes {
		return out[:start]
	}
	return EndFieldBlock(out, start, id, true)
}
