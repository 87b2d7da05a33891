package upstream

import (
	"time"

	"sluice/proxy/fields"
	"sluice/proxy/http1"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
)

// An http2Conn is the role of its http2.Conn, and an http2Stream the role of its http2.Stream.

// Side implements [http2.Role].
func (c *http2Conn) Side() (socket.Side, *socket.TLSConn) {
	return socket.Side{Raw: c.wire.Raw, Entry: &c.entry, Sweeper: c.transport.sweeper, Timeout: http2Stall}, c.wire.TLS
}

// OnOpen implements [http2.Role]: a peer opens no streams.
func (c *http2Conn) OnOpen(uint32, bool, *http2.Error) *http2.Error { return http2.ErrStreamID }

// OnLate implements [http2.Role]: what was sent before the peer knew, or after the end, is ignored.
func (c *http2Conn) OnLate(uint32, *http2.Stream) *http2.Error {
	c.pings = 0
	return nil
}

// OnSettings implements [http2.Role]. A peer that accepts no streams any more keeps no connection:
// new requests need another one, and each would leave its own.
func (c *http2Conn) OnSettings() {
	switch {
	case !c.ready:
		c.entry.Disarm()
		c.ready = true
		close(c.settled)
	case c.protocol.StreamLimit == 0 && c.lent == 0:
		c.retireLocked()
	}
}

// OnPong implements [http2.Role]: any bytes count as an answer.
func (c *http2Conn) OnPong([]byte) {}

// OnGoAway implements [http2.Role]: the streams above last were not processed.
func (c *http2Conn) OnGoAway(last uint32) {
	c.goAway, c.served = true, last > 0
	for id, s := range c.protocol.Streams {
		if id > last {
			s.StopLocked(ErrUnprocessed)
		}
	}
	if c.lent == 0 && c.ready {
		c.wire.Conn.CloseRead()
	}
}

// OnReset implements [http2.Role].
func (c *http2Conn) OnReset(*http2.Stream) {
	if c.resets++; c.resets >= http2Resets {
		c.retired = true
	}
}

// OnFault implements [http2.Role]: resets are bounded by http2Resets.
func (c *http2Conn) OnFault() *http2.Error { return nil }

// MayHold implements [http2.Role]: the windows of the streams bound that.
func (c *http2Conn) MayHold(int64) bool { return true }

// OnWritten implements [http2.Role].
func (c *http2Conn) OnWritten(err error) {
	switch {
	case c.protocol.Err != nil: // read has ended
		c.failLocked(socket.ErrClosedEarly)
	case err != nil:
		c.stopSendingLocked()
	}
}

// OnFlushed implements [http2.Role].
func (c *http2Conn) OnFlushed() {}

// OnPanic implements [http2.Role]: it ends the connection and its streams. The goroutine that reads
// ends then.
func (c *http2Conn) OnPanic() {
	c.wire.Conn.Close()
	c.protocol.Mu.Lock()
	defer c.protocol.Mu.Unlock()
	c.protocol.Flushing = false
	c.protocol.Written = c.protocol.Taken // perhaps: nobody tells
	c.failLocked(socket.ErrClosedEarly)
}

// stopSendingLocked is called when the peer takes no more bytes. Responses and a GOAWAY may
// have arrived before: read processes them, and then fails the streams that are left.
func (c *http2Conn) stopSendingLocked() {
	c.protocol.Err = socket.ErrClosedEarly
	for id, s := range c.protocol.Streams {
		if id > c.protocol.Written {
			s.StopLocked(ErrUnprocessed)
		}
	}
	c.wire.Conn.CloseRead() // ends read when it has read what is there
}

// OnHead implements [http2.StreamRole]. A head or a trailer section that is too long, or malformed,
// is an error of its stream.
func (u *http2Stream) OnHead(ends bool, tooLong *http2.Error) *http2.Error {
	c := u.conn
	c.pings = 0
	err := error(fields.ErrMalformed)
	switch {
	case tooLong != nil && !u.final:
		u.fault = faultOfLength(c.maxUnread)
		u.stream.ResetLocked(http2.Cancel, http1.ErrResponseTooLong)
		return nil
	case tooLong != nil, u.final && !ends:
	case u.final:
		u.trailer, err = c.protocol.Fields.AppendTrailer(nil)
	default:
		if err = u.addHead(&c.protocol.Fields); err == nil && ends && !u.final {
			err = fields.ErrMalformed
		}
		if err == nil && len(u.heads) > c.maxUnread {
			u.fault = faultOfLength(c.maxUnread)
			u.stream.ResetLocked(http2.Cancel, http1.ErrResponseTooLong)
			return nil
		}
	}
	if err != nil {
		fault := c.protocol.Fields.Fault(u.final)
		u.fault = &fault
		u.stream.ResetLocked(http2.ProtocolError, http1.ErrResponseField)
		return nil
	}
	if ends {
		u.stream.EndReceivedLocked()
	}
	u.stream.Wake()
	return nil
}

// OnData implements [http2.StreamRole].
func (u *http2Stream) OnData(int, bool) error {
	if u.conn.pings = 0; !u.final {
		u.fault = &http1.Fault{Rule: http1.RuleStatusLine}
		return http1.ErrResponse
	}
	return nil
}

// OnReset implements [http2.StreamRole].
func (u *http2Stream) OnReset(code http2.ErrorCode) *http2.Error {
	switch {
	case code == http2.RefusedStream && !u.final:
		u.stream.StopLocked(ErrUnprocessed)
	case code == http2.ProtocolError && !u.final:
		u.stream.StopLocked(ErrRejected)
	default:
		u.stream.StopLocked(socket.ErrClosedEarly)
	}
	return nil
}

// OnStop implements [http2.StreamRole].
func (u *http2Stream) OnStop() {}

// Patience implements [http2.StreamRole]. A client from which nothing more can come because it
// takes no answer does not make the peer slow.
func (u *http2Stream) Patience(moved bool) time.Duration {
	if moved || u.owner.Entry.WriteDeadline.Load() != 0 {
		return u.pause
	}
	return 0
}
