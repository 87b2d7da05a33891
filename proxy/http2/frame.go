package http2

import "encoding/binary"

// Preface is what a client sends before its first frame (RFC 9113, section 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// FrameHeaderBytes is the length of the header of a frame.
const FrameHeaderBytes = 9

// MaxFrameBytes is the initial SETTINGS_MAX_FRAME_SIZE, which every endpoint accepts.
const MaxFrameBytes = 16 << 10

// MaxWindow is the largest flow-control window in bytes.
const MaxWindow = 1<<31 - 1

// InitialWindow is the flow-control window in bytes of a connection, and of a stream
// before SETTINGS.
const InitialWindow = 1<<16 - 1

// FrameType is the type of a frame (RFC 9113, section 6).
type FrameType uint8

const (
	FrameData FrameType = iota
	FrameHeaders
	FramePriority
	FrameResetStream
	FrameSettings
	FramePushPromise
	FramePing
	FrameGoAway
	FrameWindowUpdate
	FrameContinuation
)

// Flags of frames.
const (
	FlagEndStream  = 0x1 // DATA, HEADERS
	FlagAck        = 0x1 // SETTINGS, PING
	FlagEndHeaders = 0x4 // HEADERS, CONTINUATION
	FlagPadded     = 0x8 // DATA, HEADERS
	FlagPriority   = 0x20
)

// SettingID identifies a setting (RFC 9113, section 6.5.2).
type SettingID uint16

const (
	SettingHeaderTableSize       SettingID = 1
	SettingEnablePush            SettingID = 2
	SettingMaxConcurrentStreams  SettingID = 3
	SettingInitialWindowSize     SettingID = 4
	SettingMaxFrameSize          SettingID = 5
	SettingMaxHeaderListSize     SettingID = 6
	SettingEnableConnectProtocol SettingID = 8 // RFC 8441
	SettingNoPriorities          SettingID = 9 // RFC 9218
)

// ErrorCode is the reason in RST_STREAM and GOAWAY (RFC 9113, section 7).
type ErrorCode uint32

const (
	NoError            ErrorCode = 0
	ProtocolError      ErrorCode = 1
	InternalError      ErrorCode = 2
	FlowControlError   ErrorCode = 3
	StreamClosed       ErrorCode = 5
	FrameSizeError     ErrorCode = 6
	RefusedStream      ErrorCode = 7
	Cancel             ErrorCode = 8
	CompressionError   ErrorCode = 9
	EnhanceYourCalm    ErrorCode = 11
	InadequateSecurity ErrorCode = 12
)

// An Error ends a connection, with a GOAWAY of its code.
type Error struct {
	Code   ErrorCode
	Reason string // for logs
}

func (e *Error) Error() string { return "HTTP/2: " + e.Reason }

// FrameHeader is the header of a frame.
type FrameHeader struct {
	Length   int // of the payload in bytes
	Type     FrameType
	Flags    uint8
	StreamID uint32
}

// Has reports whether the flag is set.
func (h *FrameHeader) Has(flag uint8) bool { return h.Flags&flag != 0 }

// ParseFrameHeader parses the first FrameHeaderBytes bytes of b.
func ParseFrameHeader(b []byte) FrameHeader {
	_ = b[FrameHeaderBytes-1]
	return FrameHeader{
		Length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		Type:   FrameType(b[3]), Flags: b[4],
		StreamID: binary.BigEndian.Uint32(b[5:]) &^ (1 << 31),
	}
}

var (
	errPadding         = &Error{ProtocolError, "padding is longer than its frame"}
	errShort           = &Error{FrameSizeError, "frame is too short for its fields"}
	errOnStream        = &Error{ProtocolError, "frame of a connection has a stream"}
	errNoStream        = &Error{ProtocolError, "frame of a stream has no stream"}
	errFrameSize       = &Error{FrameSizeError, "frame has an invalid length"}
	errTooManySettings = &Error{EnhanceYourCalm, "more than 100 settings in a frame"}
	errPush            = &Error{ProtocolError, "PUSH_PROMISE, which is not allowed"}
)

// Check checks what either side may send: the length of a frame of fixed length, and
// whether it has a stream. Unknown types pass.
func (h *FrameHeader) Check() *Error {
	switch h.Type {
	case FrameData, FrameHeaders, FrameContinuation, FramePriority, FrameResetStream:
		if h.StreamID == 0 {
			return errNoStream
		}
	case FrameSettings, FramePing, FrameGoAway:
		if h.StreamID != 0 {
			return errOnStream
		}
	case FramePushPromise:
		return errPush
	}
	if !h.hasValidLength() {
		return errFrameSize
	}
	if h.Type == FrameSettings && h.Length > maxSettings*settingBytes {
		return errTooManySettings
	}
	return nil
}

// hasValidLength reports whether the frame has a length that its type allows.
func (h *FrameHeader) hasValidLength() bool {
	switch h.Type {
	case FramePriority:
		return h.Length == 5
	case FrameResetStream, FrameWindowUpdate:
		return h.Length == 4
	case FrameSettings:
		return h.Length == 0 || h.Length%settingBytes == 0 && !h.Has(FlagAck)
	case FramePing:
		return h.Length == 8
	case FrameGoAway:
		return h.Length >= 8
	}
	return true
}

// Unpad returns the payload of a DATA or HEADERS frame without its padding. For HEADERS
// it also removes the fields of FlagPriority; dependency is the stream in them, or 0.
func (h *FrameHeader) Unpad(payload []byte) (content []byte, dependency uint32, err *Error) {
	padding := 0
	if h.Has(FlagPadded) {
		if len(payload) == 0 {
			return nil, 0, errShort
		}
		padding, payload = int(payload[0]), payload[1:]
	}
	if h.Type == FrameHeaders && h.Has(FlagPriority) {
		if len(payload) < 5 {
			return nil, 0, errShort
		}
		dependency = binary.BigEndian.Uint32(payload) &^ (1 << 31)
		payload = payload[5:]
	}
	if padding > len(payload) {
		return nil, 0, errPadding
	}
	return payload[:len(payload)-padding], dependency, nil
}

const (
	settingBytes = 6
	// maxSettings is the number of settings in a frame that is still served: each may
	// change the window of every stream. There are seven.
	maxSettings = 100
)

// A Setting is an element of a SETTINGS frame.
type Setting struct {
	ID    SettingID
	Value uint32
}

var (
	errPushSetting   = &Error{ProtocolError, "SETTINGS_ENABLE_PUSH is not 0 or 1"}
	errWindowSetting = &Error{FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE exceeds 2³¹-1"}
	errFrameSetting  = &Error{ProtocolError, "SETTINGS_MAX_FRAME_SIZE is not between 2¹⁴ and 2²⁴-1"}
)

// NextSetting returns the first setting of the payload of a SETTINGS frame and the rest.
// The payload must not be empty. It checks the values of known settings.
func NextSetting(payload []byte) (s Setting, rest []byte, err *Error) {
	s = Setting{SettingID(binary.BigEndian.Uint16(payload)), binary.BigEndian.Uint32(payload[2:])}
	switch {
	case s.ID == SettingEnablePush && s.Value > 1:
		err = errPushSetting
	case s.ID == SettingInitialWindowSize && s.Value > MaxWindow:
		err = errWindowSetting
	case s.ID == SettingMaxFrameSize && (s.Value < 1<<14 || s.Value > 1<<24-1):
		err = errFrameSetting
	}
	return s, payload[settingBytes:], err
}

// AppendFrameHeader appends the header of a frame.
func AppendFrameHeader(out []byte, h FrameHeader) []byte {
	out = append(out, byte(h.Length>>16), byte(h.Length>>8), byte(h.Length), byte(h.Type), h.Flags)
	return binary.BigEndian.AppendUint32(out, h.StreamID)
}

// AppendSettings appends a SETTINGS frame.
func AppendSettings(out []byte, settings ...Setting) []byte {
	out = AppendFrameHeader(out, FrameHeader{Length: settingBytes * len(settings), Type: FrameSettings})
	for _, s := range settings {
		out = binary.BigEndian.AppendUint16(out, uint16(s.ID))
		out = binary.BigEndian.AppendUint32(out, s.Value)
	}
	return out
}

// AppendSettingsAck appends the acknowledgement of a SETTINGS frame.
func AppendSettingsAck(out []byte) []byte {
	return AppendFrameHeader(out, FrameHeader{Type: FrameSettings, Flags: FlagAck})
}

// AppendPing appends a PING frame with the 8 bytes of data.
func AppendPing(out []byte, flags uint8, data []byte) []byte {
	return append(AppendFrameHeader(out, FrameHeader{Length: 8, Type: FramePing, Flags: flags}), data[:8]...)
}

// AppendResetStream appends an RST_STREAM frame.
func AppendResetStream(out []byte, stream uint32, code ErrorCode) []byte {
	return binary.BigEndian.AppendUint32(AppendFrameHeader(out, FrameHeader{Length: 4, Type: FrameResetStream, StreamID: stream}), uint32(code))
}

// AppendWindowUpdate appends a WINDOW_UPDATE frame.
func AppendWindowUpdate(out []byte, stream uint32, increment int) []byte {
	return binary.BigEndian.AppendUint32(AppendFrameHeader(out, FrameHeader{Length: 4, Type: FrameWindowUpdate, StreamID: stream}), uint32(increment))
}

// AppendGoAway appends a GOAWAY frame.
func AppendGoAway(out []byte, last uint32, code ErrorCode) []byte {
	out = AppendFrameHeader(out, FrameHeader{Length: 8, Type: FrameGoAway})
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(out, last), uint32(code))
}

// maxBlockBytes is the maximum length of a part of a field block. It leaves room for
// AppendWithoutTable.
const maxBlockBytes = MaxFrameBytes - 1

// AppendWithoutTable appends the frames of EndFieldBlock, with the instruction that sets
// the size of the dynamic table to 0 (RFC 7541, section 6.3).
func AppendWithoutTable(out, frames []byte) []byte {
	const sizeZero = 0x20
	h := ParseFrameHeader(frames)
	h.Length++
	return append(append(AppendFrameHeader(out, h), sizeZero), frames[FrameHeaderBytes:]...)
}

// EndFieldBlock completes a field block. out[start:] is room for a frame header and then
// the block, which it divides into HEADERS and CONTINUATION frames.
func EndFieldBlock(out []byte, start int, stream uint32, endStream bool) []byte {
	h := FrameHeader{Type: FrameHeaders, StreamID: stream}
	if endStream {
		h.Flags = FlagEndStream
	}
	for {
		h.Length = len(out) - start - FrameHeaderBytes
		if h.Length <= maxBlockBytes {
			h.Flags |= FlagEndHeaders
			AppendFrameHeader(out[:start], h)
			return out
		}
		h.Length = maxBlockBytes
		AppendFrameHeader(out[:start], h)
		start += FrameHeaderBytes + maxBlockBytes
		out = append(out, make([]byte, FrameHeaderBytes)...)
		copy(out[start+FrameHeaderBytes:], out[start:])
		h = FrameHeader{Type: FrameContinuation, StreamID: stream}
	}
}
