package proxy

import (
	"encoding/binary"
	"errors"
	"io"
	"os"

	"sluice/observe/panics"
	"sluice/proxy/http1"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
)

// read reads frames until the connection ends. It returns after all goroutines of the
// connection.
func (c *http2PeerConn) read() {
	defer panics.Contain(panics.Peer, nil)
	defer c.work.Wait()
	defer c.wire.Conn.Close()
	defer c.Remove()
	defer c.transport.forget(c)
	var b socket.Buffers
	err := panics.Err
	func() {
		defer panics.Contain(panics.Peer, nil)
		err = c.readFrames(&b)
		b.GiveBack()
	}()
	c.endStreams(err)
}

// endStreams ends the streams, and tells the peer why: err.
func (c *http2PeerConn) endStreams(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ready && err != io.EOF {
		c.failLocked(err) // dial returns it
	}
	c.failLocked(socket.ErrClosedEarly)
	c.sendGoAwayLocked(err)
}

func (c *http2PeerConn) readFrames(b *socket.Buffers) error {
	for end := 0; ; {
		n, err := c.reader.Read(c.wire, b, end, socket.RelayBufferBytes)
		switch {
		case n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded) && !c.Expired(c.transport.sweeper):
			continue
		default:
			return err
		}
		end += n
		taken, failure := c.process(b.From[:end])
		if failure != nil {
			return failure
		}
		end = copy(b.From, b.From[taken:end])
	}
}

// process processes the frames in b, and returns their length.
func (c *http2PeerConn) process(b []byte) (taken int, err *http2.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard, c.unheard = c.transport.sweeper.Now(), false
	if c.pinged != 0 {
		c.pinged = 0
		c.Disarm()
	}
	for err == nil && len(b)-taken >= http2.FrameHeaderBytes {
		frame := http2.ParseFrameHeader(b[taken:])
		end := taken + http2.FrameHeaderBytes + frame.Length
		if !c.ready && (frame.Type != http2.FrameSettings || frame.Has(http2.FlagAck)) {
			return taken, http2.ErrNoSettings
		}
		if frame.Length > http2.MaxFrameBytes {
			return taken, http2.ErrFrameTooLong
		}
		if end > len(b) {
			break
		}
		err = c.frameLocked(&frame, b[taken+http2.FrameHeaderBytes:end])
		taken = end
	}
	if c.received >= http2Window {
		c.output.Frames = http2.AppendWindowUpdate(c.output.Frames, 0, int(c.received))
		c.received = 0
	}
	c.flushLocked()
	return taken, err
}

func (c *http2PeerConn) frameLocked(frame *http2.FrameHeader, payload []byte) *http2.Error {
	if err := c.block.Check(frame); err != nil {
		return err
	}
	switch frame.Type {
	case http2.FrameData:
		c.pings = 0
		return c.dataLocked(frame, payload)
	case http2.FrameHeaders, http2.FrameContinuation:
		c.pings = 0
		block, whole, err := c.block.Take(frame, payload)
		if err != nil || !whole {
			return err
		}
		return c.blockLocked(frame.StreamID, c.block.Ends, block)
	case http2.FrameResetStream:
		c.resetByPeerLocked(frame.StreamID, http2.ErrorCode(binary.BigEndian.Uint32(payload)))
	case http2.FrameSettings:
		return c.settingsLocked(frame, payload)
	case http2.FramePing:
		if !frame.Has(http2.FlagAck) {
			c.output.Frames = http2.AppendPing(c.output.Frames, http2.FlagAck, payload)
			return c.output.CountAnswer()
		}
	case http2.FrameGoAway:
		c.goAwayLocked(binary.BigEndian.Uint32(payload) &^ (1 << 31))
	case http2.FrameWindowUpdate:
		return c.windowUpdateLocked(frame.StreamID, http2.Window(binary.BigEndian.Uint32(payload)&^(1<<31)))
	}
	return nil
}

// blockLocked processes a complete field block. It is decoded in any case, since later
// ones depend on it. One that is too long, or malformed, is an error of its stream.
func (c *http2PeerConn) blockLocked(id uint32, ends bool, block []byte) *http2.Error {
	tooLong := c.decoder.Decode(block, &c.fields)
	if tooLong != nil && tooLong != http2.ErrListTooLong {
		return tooLong
	}
	u := c.streams[id]
	switch {
	case id%2 == 0 || id >= c.next:
		return http2.ErrStreamID
	case u == nil || u.received || u.err != nil: // sent before the peer knew
		return nil
	case tooLong != nil && !u.final:
		c.resetLocked(u, http2.Cancel, http1.ErrResponseTooLong)
		return nil
	}
	err := error(http2.ErrMalformed)
	switch {
	case tooLong != nil, u.final && !ends:
	case u.final:
		u.trailer, err = c.fields.AppendTrailer(nil)
	default:
		if err = u.addHead(&c.fields); err == nil && ends && !u.final {
			err = http2.ErrMalformed
		}
		if err == nil && len(u.heads) > c.maxUnread {
			c.resetLocked(u, http2.Cancel, http1.ErrResponseTooLong)
			return nil
		}
	}
	if err != nil {
		c.resetLocked(u, http2.ProtocolError, http2ResponseError)
		return nil
	}
	u.received = ends
	signal(u.waits.readable)
	return nil
}

func (c *http2PeerConn) dataLocked(frame *http2.FrameHeader, payload []byte) *http2.Error {
	data, _, err := frame.Unpad(payload)
	if err != nil {
		return err
	}
	c.received += int64(frame.Length)
	u := c.streams[frame.StreamID]
	switch {
	case frame.StreamID >= c.next:
		return http2.ErrStreamID
	case u == nil || u.err != nil || u.received: // sent before the peer knew, or after the end
		return nil
	case !u.final:
		c.resetLocked(u, http2.ProtocolError, http2ResponseError)
		return nil
	}
	if u.granted -= frame.Length; u.granted < 0 {
		return http2.ErrTooMuchData
	}
	u.body.Append(data)
	u.received = frame.Has(http2.FlagEndStream)
	u.grantLocked(frame.Length - len(data))
	signal(u.waits.readable)
	return nil
}

func (c *http2PeerConn) resetByPeerLocked(id uint32, code http2.ErrorCode) {
	u := c.streams[id]
	switch {
	case u == nil:
	case code == http2.RefusedStream && !u.final:
		u.failLocked(errUnprocessed)
	case code == http2.ProtocolError && !u.final:
		u.failLocked(errRejected)
	case u.received:
		u.sent = true // the stream is closed
		u.endLocked(nil)
	default:
		u.failLocked(socket.ErrClosedEarly)
	}
}

// goAwayLocked handles GOAWAY: the streams above last were not processed.
func (c *http2PeerConn) goAwayLocked(last uint32) {
	c.goAway, c.served = true, last > 0
	for id, u := range c.streams {
		if id > last {
			u.failLocked(errUnprocessed)
		}
	}
	if c.lent == 0 && c.ready {
		c.wire.Conn.CloseRead()
	}
}

func (c *http2PeerConn) settingsLocked(frame *http2.FrameHeader, payload []byte) *http2.Error {
	if frame.Has(http2.FlagAck) {
		return nil
	}
	if !c.ready {
		c.Disarm()
		c.ready, c.limit = true, http2PeerStreams
		defer close(c.settled)
	}
	for len(payload) > 0 {
		setting, rest, err := http2.NextSetting(payload)
		if payload = rest; err != nil {
			return err
		}
		switch setting.ID {
		case http2.SettingMaxConcurrentStreams:
			c.limit = int(min(setting.Value, http2PeerStreams))
		case http2.SettingHeaderTableSize:
			c.output.SetTableSize(setting.Value)
		case http2.SettingInitialWindowSize:
			change := c.output.SetInitial(setting.Value)
			for _, u := range c.streams {
				if err := c.output.Enlarge(&u.sender, change); err != nil {
					return err
				}
			}
		}
	}
	c.output.Frames = http2.AppendSettingsAck(c.output.Frames)
	return c.output.CountAnswer()
}

func (c *http2PeerConn) windowUpdateLocked(id uint32, increment http2.Window) *http2.Error {
	u := c.streams[id]
	err := http2.ErrNoIncrement
	switch {
	case id >= c.next:
		return http2.ErrStreamID
	case id > 0 && (u == nil || u.err != nil):
		return nil
	case increment == 0:
	case id > 0:
		err = c.output.Enlarge(&u.sender, increment)
	default:
		err = c.output.Window.Enlarge(increment)
	}
	if err != nil && id > 0 { // an error of the stream: RFC 9113, section 6.9
		c.resetLocked(u, err.Code, socket.ErrClosedEarly)
		return nil
	}
	return err
}
