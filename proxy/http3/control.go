package http3

import (
	"bufio"
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/quic-go/quic-go"

	"sluice/observe/panics"
)

// A streamType is the type of a unidirectional stream (RFC 9114, section 6.2).
type streamType uint64

const (
	streamControl streamType = 0x0
	streamPush    streamType = 0x1
	streamEncoder streamType = 0x2 // of QPACK: RFC 9204, section 4.2
	streamDecoder streamType = 0x3
)

// Settings (RFC 9114, section 7.2.4.1).
const (
	settingMaxFieldSection = 0x6
	settingConnectProtocol = 0x8 // RFC 9220
)

const (
	// maxUniStreams is how many unidirectional streams a client may have open. It needs three.
	maxUniStreams = 8
	// maxUnknownStreams is how many of unknown types, or without one, it may open in all.
	maxUnknownStreams = 128
	// uniBufferBytes is how much of one is read at once.
	uniBufferBytes = 64
	// maxSettingsBytes and maxSettings bound the settings of a client, none of which is needed.
	maxSettingsBytes = 1 << 10
	maxSettings      = 64
)

// sendSettings opens the control stream. maxSectionBytes is the limit of field sections, as lists.
func (c *Conn) sendSettings(maxSectionBytes int) (err error) {
	if c.control, err = c.quic.OpenUniStream(); err != nil {
		return err
	}
	out := append([]byte{byte(streamControl), byte(frameSettings), 0, settingMaxFieldSection}, 0x80, 0, 0, 0)
	for i := range 4 {
		out[4+i] |= byte(maxSectionBytes >> (24 - 8*i))
	}
	out = append(out, settingConnectProtocol, 1)
	out[2] = byte(len(out) - 3)
	_, err = c.control.Write(out)
	return err
}

// acceptUniStreams reads the unidirectional streams of the client until the connection ends. The
// type of one may come later than all of another.
func (c *Conn) acceptUniStreams() {
	for {
		s, err := c.quic.AcceptUniStream(context.Background())
		if err != nil {
			return
		}
		c.work.Go(func() {
			defer panics.Contain(panics.Connection, c.Abort)
			c.CloseWith(c.readUniStream(s))
		})
	}
}

// uniStreams are the unidirectional streams that a client has opened.
type uniStreams struct {
	mu sync.Mutex
	// mu guards the fields below.
	critical []streamType
	unknown  int // without a known type
}

// open adds a stream, and returns the client's fault, or nil.
func (u *uniStreams) open(t streamType) *Error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case t == streamPush:
		return errPushStream
	case t > streamDecoder:
		if u.unknown++; u.unknown > maxUnknownStreams {
			return errTooManyStreams
		}
	case slices.Contains(u.critical, t):
		return errSecondStream
	default:
		u.critical = append(u.critical, t)
	}
	return nil
}

// streamWithoutType stands for the type of a stream that ends before it: RFC 9114, section 6.2.
const streamWithoutType streamType = 1 << 63

// readUniStream reads a stream, and returns the client's fault; nil: it was not needed, or the
// connection has ended.
func (c *Conn) readUniStream(s *quic.ReceiveStream) *Error {
	in := bufio.NewReaderSize(s, uniBufferBytes)
	at := streamWithoutType
	if t, err := readInteger(in); err == nil {
		at = streamType(t)
	}
	if fault := c.uni.open(at); fault != nil {
		return fault
	}
	if at <= streamDecoder {
		return readCritical(in, at)
	}
	s.CancelRead(quic.StreamErrorCode(StreamCreationError))
	s.ReleaseStreamCredit()
	return nil
}

// readCritical reads one of the streams that must not end before the connection, and returns the
// client's fault; nil: the connection has ended.
func readCritical(s *bufio.Reader, t streamType) *Error {
	var err error
	switch t {
	case streamControl:
		err = readControl(s)
	case streamEncoder:
		err = readEncoder(s)
	default:
		err = readDecoder(s)
	}
	var fault *Error
	var reset *quic.StreamError
	switch {
	case errors.As(err, &fault):
		return fault
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &reset):
		return errCriticalClosed
	}
	return nil
}

// readControl reads the client's control stream (RFC 9114, section 6.2.1).
func readControl(s *bufio.Reader) error {
	t, length, err := readFrameHeader(s)
	switch {
	case err != nil:
		return err
	case t != frameSettings:
		return errMissingSettings
	}
	if err := readSettings(s, length); err != nil {
		return err
	}
	var pushes, goAway uint64
	toldGoAway := false
	for {
		t, length, err := readFrameHeader(s)
		if err != nil {
			return err
		}
		switch {
		case t == frameMaxPushID, t == frameGoAway, t == frameCancelPush:
			id, err := readID(s, length)
			switch {
			case err != nil:
				return err
			case t == frameCancelPush: // nothing was promised
				return errID
			case t == frameMaxPushID && id < pushes, t == frameGoAway && toldGoAway && id > goAway:
				return errID
			case t == frameMaxPushID:
				pushes = id
			default:
				goAway, toldGoAway = id, true
			}
		case t == frameData, t == frameHeaders, t.isForControl():
			return errFrameUnexpected
		default:
			if err := discard(s, length); err != nil {
				return err
			}
		}
	}
}

// readSettings reads the payload of SETTINGS (RFC 9114, section 7.2.4).
func readSettings(s *bufio.Reader, length uint64) error {
	if length > maxSettingsBytes {
		return errTooManySettings
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(s, payload); err != nil {
		return err
	}
	var seen []uint64
	for len(payload) > 0 {
		id, rest, ok := cutInteger(payload)
		if !ok {
			return errFrameLength
		}
		value, rest, ok := cutInteger(rest)
		switch {
		case !ok:
			return errFrameLength
		case id >= 0x2 && id <= 0x5, id == settingConnectProtocol && value > 1, slices.Contains(seen, id):
			return errSettings
		case len(seen) == maxSettings:
			return errTooManySettings
		}
		seen, payload = append(seen, id), rest
	}
	return nil
}

// readEncoder reads the client's encoder stream: without capacity it can only say that there is
// none (RFC 9204, section 4.3.1).
func readEncoder(s *bufio.Reader) error {
	const noCapacity = 0x20
	for {
		switch b, err := s.ReadByte(); {
		case err != nil:
			return err
		case b != noCapacity:
			return errEncoder
		}
	}
}

// readDecoder reads the client's decoder stream: it may cancel streams, which says nothing (RFC
// 9204, section 4.4.2).
func readDecoder(s *bufio.Reader) error {
	const cancellation, most = 0x40, 10 // bytes of an id of 62 bits
	for {
		b, err := s.ReadByte()
		switch {
		case err != nil:
			return err
		case b&0xc0 != cancellation:
			return errDecoder
		}
		for i, more := 0, b&0x3f == 0x3f; more; i++ {
			if b, err = s.ReadByte(); err != nil {
				return err
			}
			if more = b&0x80 != 0; i == most {
				return errDecoder
			}
		}
	}
}

// readFrameHeader reads the type and the length of a frame.
func readFrameHeader(s *bufio.Reader) (t frameType, length uint64, err error) {
	v, err := readInteger(s)
	if err == nil {
		length, err = readInteger(s)
	}
	return frameType(v), length, err
}

// readID reads the payload of a frame that is one integer.
func readID(s *bufio.Reader, length uint64) (uint64, error) {
	if length == 0 || length > 8 {
		return 0, errFrameLength
	}
	b, err := s.Peek(int(length))
	if err != nil {
		return 0, err
	}
	id, rest, ok := cutInteger(b)
	if !ok || len(rest) > 0 {
		return 0, errFrameLength
	}
	return id, discard(s, length)
}

// discard reads the payload of a frame without a meaning.
func discard(s *bufio.Reader, length uint64) error {
	for length > 0 {
		n, err := s.Discard(int(min(length, 1<<20)))
		if err != nil {
			return err
		}
		length -= uint64(n)
	}
	return nil
}

// readInteger reads an integer of QUIC (RFC 9000, section 16).
func readInteger(s *bufio.Reader) (uint64, error) {
	first, err := s.ReadByte()
	if err != nil {
		return 0, err
	}
	v := uint64(first & 0x3f)
	for range lengthOfInteger(first) - 1 {
		b, err := s.ReadByte()
		if err != nil {
			return 0, err
		}
		v = v<<8 | uint64(b)
	}
	return v, nil
}

// cutInteger cuts the integer that begins b.
func cutInteger(b []byte) (v uint64, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < lengthOfInteger(b[0]) {
		return 0, nil, false
	}
	n := lengthOfInteger(b[0])
	return integer(b[:n]), b[n:], true
}
