package http3

// A frameType is the type of a frame (RFC 9114, section 7.2). The types that are not here have no
// meaning, and frames of them are skipped (section 9).
type frameType uint64

const (
	frameData        frameType = 0x0
	frameHeaders     frameType = 0x1
	frameCancelPush  frameType = 0x3
	frameSettings    frameType = 0x4
	framePushPromise frameType = 0x5
	frameGoAway      frameType = 0x7
	frameMaxPushID   frameType = 0xd
)

// isOfHTTP2 reports whether a type is of a frame of HTTP/2 that HTTP/3 has not: RFC 9114, section
// 7.2.8.
func (t frameType) isOfHTTP2() bool { return t == 0x2 || t == 0x6 || t == 0x8 || t == 0x9 }

// isForControl reports whether a type is allowed on control streams only, or on none of a client.
func (t frameType) isForControl() bool {
	switch t {
	case frameCancelPush, frameSettings, framePushPromise, frameGoAway, frameMaxPushID:
		return true
	}
	return t.isOfHTTP2()
}

// maxFrameHeaderBytes are two integers of QUIC (RFC 9000, section 16): the type and the length.
const maxFrameHeaderBytes = 16

// lengthOfInteger returns the length of the integer of QUIC that begins with a byte.
func lengthOfInteger(first byte) int { return 1 << (first >> 6) }

// integer returns the integer that is all of b.
func integer(b []byte) uint64 {
	v := uint64(b[0] & 0x3f)
	for _, c := range b[1:] {
		v = v<<8 | uint64(c)
	}
	return v
}

// headerOfLength is the beginning of a frame whose length is not known yet, with room for four
// bytes of it.
const headerOfLength = 1 + 4

// beginFrame appends the header of a frame of up to 2³⁰ bytes, for endFrame.
func beginFrame(out []byte, t frameType) []byte { return append(out, byte(t), 0x80, 0, 0, 0) }

// endFrame sets the length of the frame that begins at a position, to the end of out.
func endFrame(out []byte, begin int) []byte {
	n := len(out) - begin - headerOfLength
	b := out[begin+1 : begin+headerOfLength]
	b[0], b[1], b[2], b[3] = 0x80|byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	return out
}

// BeginHeaders appends the header of a HEADERS frame whose field section follows, for EndHeaders.
func BeginHeaders(out []byte) []byte { return beginFrame(out, frameHeaders) }

// EndHeaders ends the frame that BeginHeaders has appended at a position of out.
func EndHeaders(out []byte, begin int) []byte { return endFrame(out, begin) }

// AppendData appends the header of a DATA frame with that many bytes.
func AppendData(out []byte, length int) []byte {
	switch {
	case length < 1<<6:
		return append(out, byte(frameData), byte(length))
	case length < 1<<14:
		return append(out, byte(frameData), 0x40|byte(length>>8), byte(length))
	}
	return append(out, byte(frameData), 0x80|byte(length>>24), byte(length>>16), byte(length>>8), byte(length))
}
