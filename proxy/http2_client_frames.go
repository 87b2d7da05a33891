package proxy

import (
	"encoding/binary"
	"slices"

	"sluice/proxy/http1"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
)

// frameLocked processes a frame.
func (h *http2ClientConn) frameLocked(frame *http2.FrameHeader, payload []byte) *http2.Error {
	if h.stage == stageSettings {
		if frame.Type != http2.FrameSettings || frame.Has(http2.FlagAck) {
			return http2.ErrNoSettings
		}
		h.stage = stageFrames
	}
	if err := h.block.Check(frame); err != nil {
		return err
	}
	switch frame.Type {
	case http2.FrameData:
		return h.dataLocked(frame, payload)
	case http2.FrameHeaders, http2.FrameContinuation:
		return h.headersLocked(frame, payload)
	case http2.FramePriority:
		switch {
		case frame.Length != 5:
			return errPriorityBytes
		case binary.BigEndian.Uint32(payload)&^(1<<31) == frame.StreamID:
			return http2.ErrDependency
		}
	case http2.FrameResetStream:
		return h.resetByClientLocked(frame.StreamID)
	case http2.FrameSettings:
		return h.settingsLocked(frame, payload)
	case http2.FramePing:
		return h.pingLocked(frame, payload)
	case http2.FrameWindowUpdate:
		return h.windowUpdateLocked(frame.StreamID, http2.Window(binary.BigEndian.Uint32(payload)&^(1<<31)))
	}
	return nil // GOAWAY, and unknown types
}

// headersLocked processes HEADERS and CONTINUATION.
func (h *http2ClientConn) headersLocked(frame *http2.FrameHeader, payload []byte) *http2.Error {
	if frame.StreamID%2 == 0 {
		return http2.ErrStreamID
	}
	block, whole, err := h.block.Take(frame, payload)
	if err != nil || !whole {
		return err
	}
	return h.blockLocked(frame.StreamID, h.block.Ends, block)
}

// blockLocked processes a complete field block. It is decoded in any case, since later
// ones depend on it.
func (h *http2ClientConn) blockLocked(id uint32, ends bool, block []byte) *http2.Error {
	if err := h.decoder.Decode(block, &h.fields); err != nil {
		return err
	}
	s := h.streams[id]
	switch {
	case s != nil:
		return h.trailerLocked(s, ends)
	case id <= h.last && slices.Contains(h.canceled, id):
		return nil // sent before the client knew
	case id <= h.last:
		return errStreamEnded
	case h.goAway == goAwayFinal:
		return nil // the client sends it on another connection
	}
	h.last = id
	if h.open >= http2Streams {
		h.conn.server.http2.refusedStreams.Add(1)
		h.refuseLocked(id, http2.RefusedStream)
		return h.faultLocked()
	}
	if s = h.takeStreamLocked(); s != nil {
		return h.openLocked(s, id, ends)
	}
	h.conn.server.http2.refusedConnections.Add(1)
	h.refuseLocked(id, http2.RefusedStream)
	return h.output.CountAnswer()
}

// isIgnoredLocked reports whether id is of a stream that was opened before the client
// knew that it must not.
func (h *http2ClientConn) isIgnoredLocked(id uint32) bool {
	return id > h.last && h.goAway == goAwayFinal
}

// refuseLocked resets a stream that is not served.
func (h *http2ClientConn) refuseLocked(id uint32, code http2.ErrorCode) {
	h.noteCanceledLocked(id)
	h.output.Frames = http2.AppendResetStream(h.output.Frames, id, code)
}

// noteCanceledLocked notes that a stream ends before its request: the client, which may
// have http2Streams open, may have sent more of them before it knows.
func (h *http2ClientConn) noteCanceledLocked(id uint32) {
	if len(h.canceled) < http2Streams {
		h.canceled = append(h.canceled, id)
	} else {
		h.canceled[h.cancels%http2Streams] = id
	}
	h.cancels++
}

// openLocked starts to serve the request in fields.
func (h *http2ClientConn) openLocked(s *http2Stream, id uint32, ends bool) *http2.Error {
	s.prepare(id)
	x := s.exchange
	switch bytes := h.fields.RequestBytes(); {
	case bytes > s.options.Limits.HeadBytes:
		s.refused = http1.ErrHeadTooLong
		x.noteCall(h.fields.Find(":method"), h.fields.Find("content-type"))
	case bytes > len(x.in):
		x.growTo(bytes)
	}
	if s.refused == nil {
		text, framing, err := h.fields.AppendRequest(x.in[:0], ends)
		if err != nil {
			h.free = append(h.free, s)
			s.release()
			h.conn.server.http2.resetsSent.Add(1)
			h.refuseLocked(id, http2.ProtocolError)
			return h.faultLocked()
		}
		x.end = len(text)
		s.connect = framing == http2.FramingTunnel
		if framing == http2.FramingLength {
			s.expected = h.fields.ContentLength()
		}
	}
	if h.streams == nil {
		h.streams = make(map[uint32]*http2Stream)
	}
	h.streams[id] = s
	h.open++
	h.receiving++
	h.idle = false
	if ends {
		s.endedLocked(&s.received)
	}
	if len(h.streams) == 1 && !h.partial {
		h.armLocked()
	}
	if reached := h.conn.lifetime.Begin(s.server.sweeper, &s.options.Connections); reached != socket.LimitNone {
		s.server.ended.count(reached)
		h.announceGoAwayLocked()
	}
	h.work.Add(1)
	go s.onServe()
	return nil
}

// faultLocked counts a stream that ends early by the act or fault of the client.
func (h *http2ClientConn) faultLocked() *http2.Error {
	if h.resets.Add(1) > http2Resets {
		return errResets
	}
	return h.output.CountAnswer()
}

// failLocked resets a stream by the fault of the client.
func (h *http2ClientConn) failLocked(s *http2Stream, code http2.ErrorCode) *http2.Error {
	h.resetLocked(s, code)
	return h.faultLocked()
}

// trailerLocked ends a request with the trailer section in fields.
func (h *http2ClientConn) trailerLocked(s *http2Stream, ends bool) *http2.Error {
	switch {
	case s.canceled, s.received && !s.aborted:
		return errStreamEnded
	case s.aborted:
		return nil
	case !ends || s.connect || s.expected > 0 || h.fields.RequestBytes() > maxTrailerBytes:
		return h.failLocked(s, http2.ProtocolError)
	}
	trailer, err := h.fields.AppendTrailer(nil)
	if err != nil {
		return h.failLocked(s, http2.ProtocolError)
	}
	s.trailer = trailer
	s.endedLocked(&s.received)
	signal(s.waits.readable)
	return nil
}

func (h *http2ClientConn) dataLocked(frame *http2.FrameHeader, payload []byte) *http2.Error {
	data, _, err := frame.Unpad(payload)
	if err != nil {
		return err
	}
	length := int64(frame.Length)
	if h.received -= length; h.received < 0 {
		return http2.ErrTooMuchData
	}
	s := h.streams[frame.StreamID]
	switch {
	case h.isIgnoredLocked(frame.StreamID):
		h.grantLocked(frame.Length)
		return nil
	case s == nil && frame.StreamID > h.last:
		return http2.ErrStreamID
	case s == nil && !slices.Contains(h.canceled, frame.StreamID):
		return errStreamEnded
	case s != nil && (s.canceled || s.received && !s.aborted):
		return errStreamEnded
	case s == nil || s.aborted: // sent before the client knew
		h.grantLocked(frame.Length)
		return nil
	}
	if s.granted -= length; s.granted < 0 {
		return http2.ErrTooMuchData
	}
	ends := frame.Has(http2.FlagEndStream)
	if s.expected >= 0 {
		s.expected -= int64(len(data))
		if s.expected < 0 || ends && s.expected > 0 {
			h.grantLocked(frame.Length)
			return h.failLocked(s, http2.ProtocolError)
		}
	}
	if padding := frame.Length - len(data); padding > 0 {
		s.grantLocked(padding)
	}
	s.body.Append(data)
	if ends {
		s.endedLocked(&s.received)
	}
	signal(s.waits.readable)
	return nil
}

func (h *http2ClientConn) resetByClientLocked(id uint32) *http2.Error {
	s := h.streams[id]
	switch {
	case h.isIgnoredLocked(id):
		return nil
	case id > h.last:
		return http2.ErrStreamID
	case s == nil || s.aborted:
		return nil
	}
	s.canceled = true
	s.server.http2.resetsReceived.Add(1)
	s.abortLocked()
	if early := !s.answered && h.conn.server.sweeper.Now()-s.opened < int64(http2EarlyReset); !early {
		return nil
	}
	if h.resets.Add(1) > http2Resets {
		return errResets
	}
	return nil
}

func (h *http2ClientConn) settingsLocked(frame *http2.FrameHeader, payload []byte) *http2.Error {
	if frame.Has(http2.FlagAck) {
		return nil
	}
	for len(payload) > 0 {
		var (
			setting http2.Setting
			err     *http2.Error
		)
		if setting, payload, err = http2.NextSetting(payload); err != nil {
			return err
		}
		switch setting.ID {
		case http2.SettingHeaderTableSize:
			h.output.SetTableSize(setting.Value)
		case http2.SettingInitialWindowSize:
			change := h.output.SetInitial(setting.Value)
			for _, s := range h.streams {
				if err := h.output.Enlarge(&s.sender, change); err != nil {
					return err
				}
			}
		}
	}
	h.output.Frames = http2.AppendSettingsAck(h.output.Frames)
	return h.output.CountAnswer()
}

func (h *http2ClientConn) pingLocked(frame *http2.FrameHeader, payload []byte) *http2.Error {
	if frame.Has(http2.FlagAck) {
		if h.goAway == goAwayAnnounced && string(payload) == string(goAwayPing) {
			h.settleGoAwayLocked()
		}
		return nil
	}
	h.output.Frames = http2.AppendPing(h.output.Frames, http2.FlagAck, payload)
	return h.output.CountAnswer()
}

func (h *http2ClientConn) windowUpdateLocked(id uint32, increment http2.Window) *http2.Error {
	switch {
	case h.isIgnoredLocked(id):
		return nil
	case id > h.last:
		return http2.ErrStreamID
	case increment == 0:
		return http2.ErrNoIncrement
	case id == 0:
		return h.output.Window.Enlarge(increment)
	}
	s := h.streams[id]
	if s == nil || s.aborted {
		return nil
	}
	if err := h.output.Enlarge(&s.sender, increment); err != nil {
		return h.failLocked(s, err.Code)
	}
	return nil
}
