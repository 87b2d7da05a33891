package http2

import (
	"encoding/binary"
	"errors"

	"sluice/proxy/socket"
)

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

// ProcessLocked processes the whole frames in b, and returns their length. No frame waits for a
// stream. The error ends the connection. now is coarse time.
func (c *Conn) ProcessLocked(b []byte, now int64) (taken int, err *Error) {
	c.overhead.Leak(now, OverheadTime)
	for err == nil && len(b)-taken >= FrameHeaderBytes {
		frame := ParseFrameHeader(b[taken:])
		if !c.Settled && (frame.Type != FrameSettings || frame.Has(FlagAck)) {
			return taken, errNoSettings
		}
		if frame.Length > MaxFrameBytes {
			return taken, errFrameTooLong
		}
		end := taken + FrameHeaderBytes + frame.Length
		if end > len(b) {
			break
		}
		if err = c.frame(&frame, b[taken+FrameHeaderBytes:end]); err == nil {
			err = c.count(&frame)
		}
		taken = end
		c.Progressed = c.Progressed || !c.block.isOpen()
	}
	c.Output.Fill()
	c.FlushLocked()
	return taken, err
}

// IsPartial reports whether a part of a field block has arrived, or the first SETTINGS is awaited.
// It is for the reading goroutine.
func (c *Conn) IsPartial() bool { return !c.Settled || c.block.isOpen() }

// count bounds the frames beside heads and bodies.
func (c *Conn) count(frame *FrameHeader) *Error {
	useful := c.useful
	c.useful = 0
	switch frame.Type {
	case FrameData, FrameHeaders, FrameContinuation:
		useful += int64(frame.Length)
	}
	if c.overhead.Add(int64(FrameHeaderBytes+frame.Length)-OverheadRatio*useful) > OverheadBytes {
		return errFlood
	}
	return nil
}

func (c *Conn) frame(frame *FrameHeader, payload []byte) *Error {
	if err := c.block.check(frame); err != nil {
		return err
	}
	switch frame.Type {
	case FrameData:
		return c.data(frame, payload)
	case FrameHeaders, FrameContinuation:
		return c.headers(frame, payload)
	case FramePriority:
		if binary.BigEndian.Uint32(payload)&^(1<<31) == frame.StreamID {
			return errDependency
		}
	case FrameResetStream:
		s, err := c.find(frame.StreamID)
		if s == nil || s.Stopped {
			return err
		}
		s.Canceled = true
		return s.role.OnReset(ErrorCode(binary.BigEndian.Uint32(payload)))
	case FrameSettings:
		return c.settings(frame, payload)
	case FramePing:
		if frame.Has(FlagAck) {
			c.role.OnPong(payload)
			return nil
		}
		c.Output.Frames = AppendPing(c.Output.Frames, FlagAck, payload)
		return c.Output.CountAnswer()
	case FrameGoAway:
		c.role.OnGoAway(binary.BigEndian.Uint32(payload) &^ (1 << 31))
	case FrameWindowUpdate:
		return c.windowUpdate(frame.StreamID, Window(binary.BigEndian.Uint32(payload)&^(1<<31)))
	}
	return nil // unknown types too
}

// find returns the stream id; nil: it is not in use, and without an error it was, or is ignored.
func (c *Conn) find(id uint32) (*Stream, *Error) {
	if id > c.Last && !c.Final {
		return nil, ErrStreamID
	}
	return c.Streams[id], nil
}

// headers processes HEADERS and CONTINUATION. A complete block is decoded in any case, since later
// ones depend on it.
func (c *Conn) headers(frame *FrameHeader, payload []byte) *Error {
	id := frame.StreamID
	if id%2 == 0 {
		return ErrStreamID
	}
	block, whole, err := c.block.take(frame, payload)
	if err != nil || !whole {
		return err
	}
	if err = errorOf(c.decoder.Decode(block, &c.Fields)); err != nil && err != ErrListTooLong {
		return err
	}
	s := c.Streams[id]
	switch {
	case id > c.Last && c.Final:
		return nil // the other side sends it on another connection
	case id > c.Last:
		return c.role.OnOpen(id, c.block.ends, err)
	case s == nil || s.Stopped || s.Received:
		return c.role.OnLate(id, s)
	}
	return s.role.OnHead(c.block.ends, err)
}

func (c *Conn) data(frame *FrameHeader, payload []byte) *Error {
	data, _, err := frame.Unpad(payload)
	if err != nil {
		return err
	}
	length := int64(frame.Length)
	if c.received -= length; c.received < 0 {
		return errTooMuchData
	}
	s, err := c.find(frame.StreamID)
	switch {
	case err != nil:
		return err
	case s == nil || s.Stopped || s.Received:
		if c.GrantLocked(frame.Length); frame.StreamID > c.Last {
			return nil
		}
		return c.role.OnLate(frame.StreamID, s)
	}
	if s.granted -= length; s.granted < 0 {
		return errTooMuchData
	}
	ends := frame.Has(FlagEndStream)
	if err := s.role.OnData(len(data), ends); err != nil {
		c.GrantLocked(frame.Length)
		return c.FaultLocked(s, ProtocolError, err)
	}
	s.GrantLocked(frame.Length - len(data))
	s.Body.Append(data)
	if ends {
		s.EndReceivedLocked()
	}
	s.Wake()
	if c.Held += int64(len(data)); !c.role.MayHold(c.Held) {
		return c.shedLocked()
	}
	return nil
}

// ErrNoMemory is the error of a stream of which too much was not read.
var ErrNoMemory = errors.New("HTTP/2: too many bytes of bodies wait to be forwarded")

// shedLocked ends the stream that holds most of what was not read.
func (c *Conn) shedLocked() (err *Error) {
	var most *Stream
	for _, s := range c.Streams {
		if most == nil || s.Body.Length() > most.Body.Length() {
			most = s
		}
	}
	if !most.Stopped {
		err = c.FaultLocked(most, EnhanceYourCalm, ErrNoMemory)
	}
	most.Received = false // its end has not been read, and never is
	most.dropBodyLocked()
	return err
}

func (c *Conn) settings(frame *FrameHeader, payload []byte) *Error {
	if frame.Has(FlagAck) {
		return nil
	}
	for len(payload) > 0 {
		setting, rest, err := NextSetting(payload)
		if payload = rest; err != nil {
			return err
		}
		switch setting.ID {
		case SettingMaxConcurrentStreams:
			c.StreamLimit = setting.Value
		case SettingMaxHeaderListSize:
			c.ListLimit = setting.Value
		case SettingHeaderTableSize:
			c.Output.SetTableSize(setting.Value)
		case SettingInitialWindowSize:
			change := c.Output.SetInitial(setting.Value)
			for _, s := range c.Streams {
				if err := c.Output.Enlarge(&s.Sender, change); err != nil {
					return err
				}
			}
		}
	}
	c.role.OnSettings()
	c.Settled = true
	c.Output.Frames = AppendSettingsAck(c.Output.Frames)
	return c.Output.CountAnswer()
}

func (c *Conn) windowUpdate(id uint32, increment Window) *Error {
	s, err := c.find(id)
	switch {
	case err != nil, id > 0 && (s == nil || s.Stopped):
		return err
	case increment == 0:
		err = errNoIncrement
	case id == 0:
		err = c.Output.Window.Enlarge(increment)
	default:
		err = c.Output.Enlarge(&s.Sender, increment)
	}
	if err != nil && id > 0 { // an error of the stream: RFC 9113, section 6.9
		return c.FaultLocked(s, err.Code, socket.ErrClosedEarly)
	}
	return err
}

// FaultLocked resets a stream by a fault of the other side. Waits for it end with err.
func (c *Conn) FaultLocked(s *Stream, code ErrorCode, err error) *Error {
	s.ResetLocked(code, err)
	return c.role.OnFault()
}
