package upstream

import (
	"bytes"
	"errors"
	"io"
	"os"

	"sluice/observe/panics"
	"sluice/observe/wake"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
)

// An outgoing is the request that an HTTP1Conn sends.
type outgoing struct {
	request []byte         // to send
	body    []byte         // to send after request
	records *socket.Buffer // with TLS: the memory of request, or nil
	sent    bool           // a part of the request was sent

	// The part of the request that did not fit the socket buffer.
	remainderSent bool          // valid after remainder is closed
	remainder     chan struct{} // closed when that is sent, or cannot be; nil: there was none
}

// Send implements [Conn]. If no part of the request was sent, the error is errStale
// or the error of a closed socket.
//
// If the peer responds before it has the whole body, a goroutine continues to send
// body.
func (u *HTTP1Conn) Send(b *socket.Buffers, body, _ []byte, w Until) (sent bool, err error) {
	if len(body) <= socket.RequestBufferBytes {
		b.Out, body = append(b.Out, body...), nil
	}
	u.out.request, u.out.body, u.buffers, u.out.sent = b.Out, body, b, false
	if u.wire.TLS != nil {
		if err := u.out.seal(u.wire.TLS); err != nil {
			return false, err
		}
	}
	u.start, u.end, u.err, u.woken, u.out.remainder = 0, 0, nil, false, nil
	u.until = w
	defer func() {
		u.until = Until{}
		if err != nil {
			b.GiveBack()
			u.out.dropRecords()
		}
	}()
	for {
		err = u.wire.Raw.Read(u.onSocket)
		switch {
		case err != nil && u.wokenInError(err):
			if waiting := u.out.sent && len(u.out.request) == 0; !waiting {
				u.woken = true
			} else if err := u.endOfWait(); err != nil {
				return true, err
			}
		case err != nil:
			return u.out.sent, err
		case u.err != nil:
			return u.out.sent, u.err
		case u.end > 0: // an answer, perhaps before the whole request was sent
			u.out.dropRecords()
			return true, nil
		default: // the socket is full
			if u.out.body != nil || body == nil {
				u.out.request = bytes.Clone(u.out.request) // b is given back
			}
			u.sendRemainder(u.out.request, u.out.body)
			u.out.request, u.out.body, u.out.sent = nil, nil, true
		}
	}
}

// sendRemainder sends the remainder of a request in its own goroutine, because the
// peer may respond, and read no further, before it has the whole request.
func (u *HTTP1Conn) sendRemainder(request, body []byte) {
	done, records := make(chan struct{}), u.out.records
	u.out.remainder, u.out.remainderSent, u.out.records = done, false, nil
	go func() {
		defer close(done)
		defer panics.Contain(panics.Exchange, nil)
		// After an error the other goroutine reads what the peer sent before.
		if u.write(request) == nil && u.writeSealed(records, body) == nil {
			u.out.remainderSent = true
		}
	}()
}

// allSent reports whether the whole request was sent. It is called when the response
// is complete: see transfer.EndsShortly.
func (o *outgoing) allSent() bool {
	return len(o.request) == 0 && (o.remainder == nil || transfer.EndsShortly(o.remainder) && o.remainderSent)
}

// HasSent implements [Conn].
func (u *HTTP1Conn) HasSent() bool {
	if u.out.remainder == nil {
		return len(u.out.request)+len(u.out.body) == 0
	}
	return wake.Closed(u.out.remainder)
}

// receiveLast reads what the peer sent before it closed the connection fd, which may
// be a response, or say why: then err is that. It is called after a write failed with err.
func receiveLast(w *socket.Wire, fd uintptr, b *socket.Buffers, err error) (int, error) {
	w.Wake()
	n, last := w.Receive(fd, b.From[:socket.ResponseBufferBytes])
	if rejects(last) {
		err = last
	}
	return n, err
}

// waitIsOver is called before step waits, and reports whether that wait ended before
// it began: u was woken while it sent the request. If not, it gives the buffers back.
func (u *HTTP1Conn) waitIsOver() bool {
	if u.woken {
		u.woken = false
		u.err = u.endOfWait()
	}
	if u.err == nil {
		u.buffers.GiveBack()
	}
	return u.err != nil
}

// step sends and receives without waiting, and reports whether raw.Read ends.
// Otherwise it is called again when the socket is readable. It parks without a read
// only after it has sent on a reused connection, which was quiet before: on a new one
// the peer may have sent first.
func (u *HTTP1Conn) step(fd uintptr) bool {
	for len(u.out.request) > 0 {
		if u.used && !u.out.sent && !u.wire.Quiet(fd) {
			u.err = errStale
			return true
		}
		n, err := socket.Send(fd, u.out.request)
		if n > 0 {
			u.out.sent = true
		}
		u.out.request = u.out.request[n:]
		if err != nil && err != socket.ErrWouldBlock {
			if u.out.sent || !u.used {
				u.end, err = receiveLast(&u.wire, fd, u.buffers, err)
			}
			if u.end == 0 {
				u.err = err
			}
			return true
		}
		if len(u.out.request) > 0 {
			return true
		}
		if u.err = u.out.next(u.wire.TLS); u.err != nil {
			return true
		}
		if len(u.out.request) == 0 && u.used {
			return u.waitIsOver()
		}
	}
	u.buffers.Borrow()
	u.wire.Wake()
	n, err := u.wire.Receive(fd, u.buffers.From[:socket.ResponseBufferBytes])
	switch {
	case err == io.EOF:
		u.err = socket.ErrClosedEarly
	case err == socket.ErrWouldBlock:
		return u.waitIsOver()
	case err != nil:
		u.err = err
	case n == 0:
		u.err = socket.ErrClosedEarly
	}
	u.end = n
	return true
}

// SendHead implements [Conn].
func (u *HTTP1Conn) SendHead(b *socket.Buffers, chunked bool) (answered, sent bool, err error) {
	u.chunked, u.start, u.end = chunked, 0, 0
	if u.used && !u.quiet() {
		return false, false, errStale
	}
	n, err := u.writer.WriteSealed(u.sinkSide(), u.wire.TLS, b.Out)
	if err != nil && (n > 0 || !u.used) {
		u.wire.Raw.Control(func(fd uintptr) { u.end, err = receiveLast(&u.wire, fd, b, err) })
		if u.end > 0 {
			return true, true, nil
		}
	}
	return false, n > 0 || err == nil, err
}

// TakesCoded implements [transfer.Sink].
func (u *HTTP1Conn) TakesCoded() bool { return true }

// WriteBody implements [transfer.Sink].
func (u *HTTP1Conn) WriteBody(b *socket.Buffers, p transfer.Piece) error {
	if u.chunked && !p.Coded {
		b.Borrow()
	}
	return transfer.Send(b.Out[:0], p, u.chunked, true, u.sendPiece)
}

func (u *HTTP1Conn) sendPiece(b []byte) error {
	_, err := u.writer.WriteSealed(u.sinkSide(), u.wire.TLS, b)
	return err
}

// sinkSide returns the connection for writing a streamed body. Its timeout does not
// run while the response waits for the client.
func (u *HTTP1Conn) sinkSide() socket.Side {
	return socket.Side{Raw: u.wire.Raw, Entry: &u.entry, Sweeper: u.transport.sweeper, Timeout: u.pause, BlockedBy: &u.owner.Load().Entry}
}

// SinkSocket implements [transfer.Sink].
func (u *HTTP1Conn) SinkSocket() (socket.Side, *socket.Pace) {
	if u.wire.TLS != nil {
		return socket.Side{}, nil
	}
	return u.sinkSide(), &u.writer.Pace
}

// write writes all of b, unencoded, until the read deadline, which the round trip has set, and may
// set later meanwhile.
func (u *HTTP1Conn) write(b []byte) error {
	end := u.entry.Deadline.Load()
	u.entry.ArmWrite(end)
	defer u.entry.WriteDeadline.Store(0)
	for {
		n, err := u.wire.Conn.Write(b)
		b = b[n:]
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if later := u.entry.Deadline.Load(); later > end {
			end = later
			u.entry.ArmWrite(end)
		}
		if u.entry.WriteExpired(u.transport.sweeper) {
			return err
		}
	}
}
