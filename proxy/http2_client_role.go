package proxy

import (
	"slices"
	"time"

	"sluice/proxy/http1"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
)

// An http2ClientConn is the role of its http2.Conn, and an http2Stream the role of its
// http2.Stream.

// Side implements [http2.Role].
func (h *http2ClientConn) Side() (socket.Side, *socket.TLSConn) {
	return h.conn.side(h.conn.client.options.Timeouts.Write), h.conn.wire.TLS
}

// OnOpen implements [http2.Role].
func (h *http2ClientConn) OnOpen(id uint32, ends bool, err *http2.Error) *http2.Error {
	if err != nil {
		return err
	}
	h.protocol.Last = id
	if h.protocol.Open >= http2Streams {
		h.conn.client.server.http2.refusedStreams.Add(1)
		h.refuseLocked(id, http2.RefusedStream)
		return h.OnFault()
	}
	if s := h.takeStreamLocked(); s != nil {
		return h.openLocked(s, id, ends)
	}
	h.conn.client.server.http2.refusedConnections.Add(1)
	h.refuseLocked(id, http2.RefusedStream)
	return h.protocol.Output.CountAnswer()
}

// OnLate implements [http2.Role]: the client may not know that the stream was canceled.
func (h *http2ClientConn) OnLate(id uint32, s *http2.Stream) *http2.Error {
	if s == nil && slices.Contains(h.canceled.ids, id) || s != nil && !s.Received && !s.Canceled {
		return nil
	}
	return errStreamEnded
}

// refuseLocked resets a stream that is not served.
func (h *http2ClientConn) refuseLocked(id uint32, code http2.ErrorCode) {
	h.canceled.add(id)
	h.protocol.Output.Frames = http2.AppendResetStream(h.protocol.Output.Frames, id, code)
}

// openLocked starts to serve the request in fields.
func (h *http2ClientConn) openLocked(s *http2Stream, id uint32, ends bool) *http2.Error {
	s.prepare()
	x := s.exchange
	switch bytes := h.protocol.Fields.RequestBytes(); {
	case bytes > int(s.client.options.Limits.HeadBytes):
		s.refused = http1.ErrHeadTooLong
		x.request.setKind(h.protocol.Fields.Find(":method"), h.protocol.Fields.Find("content-type"))
	case bytes > len(x.request.in):
		x.request.growTo(bytes)
	}
	if s.refused == nil {
		text, length, tunnel, err := h.protocol.Fields.AppendRequest(x.request.in[:0], ends)
		if err != nil {
			h.free = append(h.free, s)
			s.release()
			h.conn.client.server.http2.resetsSent.Add(1)
			h.refuseLocked(id, http2.ProtocolError)
			return h.OnFault()
		}
		x.request.end, s.expected, s.connect = len(text), length, tunnel
	}
	s.stream.OpenLocked(id)
	h.idle = false
	if ends {
		s.stream.EndReceivedLocked()
	}
	if len(h.protocol.Streams) == 1 && !h.partial {
		h.armLocked()
	}
	if reached := h.conn.lifetime.Begin(s.client.server.sweeper, &s.client.options.Connections); reached != socket.LimitNone {
		s.client.server.ended.count(reached)
		h.announceGoAwayLocked()
	}
	h.startLocked(s)
	return nil
}

// startLocked serves the request of s, or does so later if as many requests are being served as may
// be open: some were canceled, and their work has not ended. So a client that cancels requests
// cannot have more work done than one that does not.
func (h *http2ClientConn) startLocked(s *http2Stream) {
	if s.pending = len(h.protocol.Streams)-len(h.pending) > http2Streams; s.pending {
		h.pending = append(h.pending, s)
		return
	}
	h.protocol.Work.Add(1)
	go s.onServe()
}

// OnFault implements [http2.Role]. It counts a stream that ends early by the act or fault of the
// client.
func (h *http2ClientConn) OnFault() *http2.Error {
	if h.resets.Add(1) > http2Resets {
		return errResets
	}
	return h.protocol.Output.CountAnswer()
}

// MayHold implements [http2.Role].
func (h *http2ClientConn) MayHold(bytes int64) bool {
	s := h.conn.client.server
	needed := max(0, bytes-http2FreeBytes+http2HeldStep-1) / http2HeldStep * http2HeldStep
	switch more := needed - h.held; {
	case more > 0:
		if !s.streamMemory.Take(h.block, more, s.options.Load().Limits.StreamBytes) {
			return false
		}
	case more == 0, needed > 0 && -more < 4*http2HeldStep: // it may be needed again soon
		return true
	default:
		s.streamMemory.Give(h.block, -more)
	}
	h.held = needed
	return true
}

// OnReset implements [http2.Role].
func (h *http2ClientConn) OnReset(s *http2.Stream) {
	if !s.Received {
		h.canceled.add(s.ID)
	}
	h.conn.client.server.http2.resetsSent.Add(1)
}

// OnSettings implements [http2.Role].
func (h *http2ClientConn) OnSettings() {}

// OnGoAway implements [http2.Role].
func (h *http2ClientConn) OnGoAway(uint32) {}

// OnPong implements [http2.Role].
func (h *http2ClientConn) OnPong(data []byte) {
	if h.goAway == goAwayAnnounced && string(data) == string(goAwayPing) {
		h.goAwayUntil = min(h.goAwayUntil, h.conn.client.server.sweeper.Exact()+int64(http2GoAwaySettle))
		h.armLocked()
	}
}

// OnWritten implements [http2.Role]: all streams end after the connection has failed.
func (h *http2ClientConn) OnWritten(err error) {
	if err == nil {
		return
	}
	h.protocol.Err, h.protocol.Output.Frames = err, nil
	for _, s := range h.protocol.Streams {
		s.StopLocked(socket.ErrClosedEarly)
	}
}

// OnFlushed implements [http2.Role].
func (h *http2ClientConn) OnFlushed() {
	if len(h.protocol.Streams) == 0 {
		h.armLocked()
	}
	if h.protocol.Err != nil || h.goAway == goAwayFinal && len(h.protocol.Streams) == 0 {
		h.conn.wire.WakeReader()
	}
}

// OnHead implements [http2.StreamRole]: the trailer section ends the request.
func (s *http2Stream) OnHead(ends bool, tooLong *http2.Error) *http2.Error {
	h := s.conn
	if tooLong != nil {
		return tooLong
	}
	if !ends || s.connect || s.expected > 0 || h.protocol.Fields.RequestBytes() > maxTrailerBytes {
		return h.protocol.FaultLocked(&s.stream, http2.ProtocolError, socket.ErrClosedEarly)
	}
	trailer, err := h.protocol.Fields.AppendTrailer(nil)
	if err != nil {
		return h.protocol.FaultLocked(&s.stream, http2.ProtocolError, socket.ErrClosedEarly)
	}
	s.trailer = trailer
	s.stream.EndReceivedLocked()
	s.stream.Wake()
	return nil
}

// OnData implements [http2.StreamRole]. The body has as many bytes as Content-Length announces.
func (s *http2Stream) OnData(n int, ends bool) error {
	if s.expected < 0 {
		return nil
	}
	if s.expected -= int64(n); s.expected < 0 || ends && s.expected > 0 {
		return socket.ErrClosedEarly
	}
	return nil
}

// OnReset implements [http2.StreamRole].
func (s *http2Stream) OnReset(http2.ErrorCode) *http2.Error {
	h := s.conn
	s.client.server.http2.resetsReceived.Add(1)
	s.stream.StopLocked(socket.ErrClosedEarly)
	if early := !s.answered && s.client.server.sweeper.Now()-s.opened < int64(http2EarlyReset); early && h.resets.Add(1) > http2Resets {
		return errResets
	}
	return nil
}

// OnStop implements [http2.StreamRole].
func (s *http2Stream) OnStop() {
	s.client.shed.Store(s.stream.Err == http2.ErrNoMemory)
	if !s.client.options.KeepForGoneClients || s.client.shed.Load() {
		s.client.Gone.Store(true)
	}
	if s.pending { // there is no work to wait for
		h := s.conn
		h.pending = slices.DeleteFunc(h.pending, func(other *http2Stream) bool { return other == s })
		s.pending = false
		s.release()
		s.stream.CloseLocked()
		h.free = append(h.free, s)
	}
}

// Patience implements [http2.StreamRole].
func (s *http2Stream) Patience(moved bool) time.Duration {
	return s.client.writePatience(s.inTunnel, moved)
}
