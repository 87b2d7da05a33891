package http2

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
