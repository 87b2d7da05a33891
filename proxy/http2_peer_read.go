package proxy

import (
	"encoding/binary"
	"errors"
	"io"
	"os"

	"sluice/proxy/http2"
)

// read reads frames until the connection ends. It returns after all goroutines of the
// connection.
func (c *http2PeerConn) read() {
	var b buffers
	err := c.readFrames(&b)
	b.giveBack()
	c.mu.Lock()
	if !c.ready && err != io.EOF {
		c.failLocked(err) // dial returns it
	}
	c.failLocked(errClosedEarly)
	c.sendGoAwayLocked(err)
	c.mu.Unlock()
	c.transport.forget(c)
	c.remove()
	c.wire.conn.Close()
	c.work.Wait()
}

func (c *http2PeerConn) readFrames(b *buffers) error {
	for end := 0; ; {
		n, err := c.reader.read(c.wire, b, end, relayBufferBytes)
		switch {
		case n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded) && !c.expired(c.transport.sweeper):
			continue
		default:
			return err
		}
		end += n
		taken, failure := c.process(b.from[:end])
		if failure != nil {
			return failure
		}
		end = copy(b.from, b.from[taken:end])
	}
}

// process processes the frames in b, and returns their length.
func (c *http2PeerConn) process(b []byte) (taken int, err *http2.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard, c.unheard = c.transport.sweeper.now(), false
	if c.pinged != 0 {
		c.pinged = 0
		c.disarm()
	}
	for err == nil && len(b)-taken >= http2.FrameHeaderBytes {
		frame := http2.ParseFrameHeader(b[taken:])
		end := taken + http2.FrameHeaderBytes + frame.Length
		if !c.ready && (frame.Type != http2.FrameSettings || frame.Has(http2.FlagAck)) {
			return taken, errNoSettings
		}
		if frame.Length > http2.MaxFrameBytes {
			return taken, errFrameTooLong
		}
		if end > len(b) {
			break
		}
		err = c.frameLocked(&frame, b[taken+http2.FrameHeaderBytes:end])
		taken = end
	}
	if c.received >= http2Window {
		c.out = http2.AppendWindowUpdate(c.out, 0, int(c.received))
		c.received = 0
	}
	c.flushLocked()
	return taken, err
}

func (c *http2PeerConn) frameLocked(frame *http2.FrameHeader, payload []byte) *http2.Error {
	if open := c.block.header.StreamID; open != 0 && (frame.Type != http2.FrameContinuation || frame.StreamID != open) {
		return errContinuation
	}
	if err := frame.Check(); err != nil {
		return err
	}
	switch frame.Type {
	case http2.FrameData:
		c.pings = 0
		return c.dataLocked(frame, payload)
	case http2.FrameHeaders:
		c.pings = 0
		block, _, err := frame.Unpad(payload)
		switch {
		case err != nil:
			return err
		case frame.Has(http2.FlagEndHeaders):
			return c.blockLocked(frame, block)
		}
		c.block = fieldBlock{bytes: append(c.block.bytes[:0], block...), header: *frame}
	case http2.FrameContinuation:
		block := &c.block
		switch block.frames++; {
		case block.header.StreamID == 0:
			return errContinuation
		case block.frames > http2Continuations || len(block.bytes)+len(payload) > c.maxListBytes:
			return errBlockTooLong
		}
		block.bytes = append(block.bytes, payload...)
		if frame.Has(http2.FlagEndHeaders) {
			complete := c.block
			c.block = fieldBlock{}
			return c.blockLocked(&complete.header, complete.bytes)
		}
	case http2.FrameResetStream:
		c.resetByPeerLocked(frame.StreamID, http2.ErrorCode(binary.BigEndian.Uint32(payload)))
	case http2.FrameSettings:
		return c.settingsLocked(frame, payload)
	case http2.FramePing:
		if !frame.Has(http2.FlagAck) {
			c.out = http2.AppendPing(c.out, http2.FlagAck, payload)
			return c.answerLocked()
		}
	case http2.FrameGoAway:
		c.goAwayLocked(binary.BigEndian.Uint32(payload) &^ (1 << 31))
	case http2.FrameWindowUpdate:
		return c.windowUpdateLocked(frame.StreamID, int64(binary.BigEndian.Uint32(payload)&^(1<<31)))
	}
	return nil
}

// blockLocked processes a complete field block. It is decoded in any case, since later
// ones depend on it.
func (c *http2PeerConn) blockLocked(frame *http2.FrameHeader, block []byte) *http2.Error {
	if err := c.decoder.Decode(block, &c.fields); err != nil {
		return err
	}
	u := c.streams[frame.StreamID]
	switch {
	case frame.StreamID%2 == 0 || frame.StreamID >= c.next:
		return errStreamID
	case u == nil || u.received || u.err != nil: // sent before the peer knew
		return nil
	}
	ends := frame.Has(http2.FlagEndStream)
	var err error
	if u.final {
		if u.trailer, err = c.fields.AppendTrailer(nil); !ends {
			err = http2.ErrMalformed
		}
	} else {
		status := len(u.heads) + len("HTTP/1.1 ")
		u.heads, err = c.fields.AppendResponse(u.heads)
		u.final = err == nil && u.heads[status] != '1'
		if ends && !u.final || len(u.heads) > c.maxListBytes {
			err = http2.ErrMalformed
		}
	}
	if err != nil {
		c.out = http2.AppendResetStream(c.out, frame.StreamID, http2.ProtocolError)
		u.failLocked(http2ResponseError)
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
		return errStreamID
	case u == nil || u.err != nil: // sent before the peer knew
		return nil
	case u.received || !u.final:
		return errStreamEnded
	}
	if u.granted -= frame.Length; u.granted < 0 {
		return errTooMuchData
	}
	u.body.append(data)
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
		u.sent, u.stopped = true, true // sent: the stream is closed
		signal(u.waits.writable)
	default:
		u.failLocked(errClosedEarly)
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
		c.wire.conn.CloseRead()
	}
}

func (c *http2PeerConn) settingsLocked(frame *http2.FrameHeader, payload []byte) *http2.Error {
	if frame.Has(http2.FlagAck) {
		return nil
	}
	if !c.ready {
		c.disarm()
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
			c.tableSize = c.tableSize || setting.Value < http2.InitialTableBytes
		case http2.SettingInitialWindowSize:
			change := int64(setting.Value) - c.initial
			c.initial += change
			for _, u := range c.streams {
				if u.window += change; u.window > http2.MaxWindow {
					return errWindow
				}
			}
		}
	}
	c.out = http2.AppendSettingsAck(c.out)
	return c.answerLocked()
}

// answerLocked counts a frame in out that answers one of the peer.
func (c *http2PeerConn) answerLocked() *http2.Error {
	if c.control++; c.control > http2PendingControl {
		return errNotRead
	}
	return nil
}

func (c *http2PeerConn) windowUpdateLocked(id uint32, increment int64) *http2.Error {
	window := &c.window
	if id > 0 {
		u := c.streams[id]
		switch {
		case id >= c.next:
			return errStreamID
		case u == nil:
			return nil
		}
		window = &u.window
	}
	if increment == 0 {
		return errNoIncrement
	}
	if *window += increment; *window > http2.MaxWindow {
		return errWindow
	}
	return nil
}
