package upstream

import (
	"errors"
	"io"
	"os"
	"time"

	"sluice/observe/panics"
	"sluice/proxy/http1"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
)

// Await implements [Conn].
func (u *HTTP1Conn) Await(b *socket.Buffers, w Until) error {
	u.until = w
	defer func() { u.until = Until{} }()
	if err := u.endOfWait(); err != nil { // since the last wait
		return err
	}
	if w.Changed != nil {
		over := make(chan struct{})
		defer close(over)
		go func() {
			defer panics.Contain(panics.Exchange, nil)
			select {
			case <-w.Changed:
				u.wire.WakeReader() // which calls endOfWait
			case <-over:
			}
		}()
	}
	return u.fill(b, socket.ResponseBufferBytes)
}

// fill waits for bytes and reads them into b.from[:most]. It gives b back while it
// waits.
func (u *HTTP1Conn) fill(b *socket.Buffers, most int) error {
	for {
		n, err := u.reader.Read(u.wire, b, 0, most)
		u.start, u.end = 0, n
		switch {
		case n > 0:
			return nil
		case err == io.EOF:
			return socket.ErrClosedEarly
		case !u.wokenInError(err):
			return err
		default:
			if err := u.endOfWait(); err != nil {
				return err
			}
		}
	}
}

// ReadHead implements [Conn].
func (u *HTTP1Conn) ReadHead(b *socket.Buffers, head *http1.ResponseHead) (text []byte, err error) {
	if u.start > 0 { // after an interim response
		u.start, u.end = 0, copy(b.From, b.From[u.start:u.end])
	}
	if u.end == 0 {
		if err := u.Await(b, Until{}); err != nil {
			return nil, err
		}
	}
	limit := int(u.transport.options.HeadBytes)
	head.Reset(u.transport.options.Fields)
	for {
		n, err := head.Scan(b.From[:min(u.end, limit)])
		switch {
		case err != nil:
			return u.readRepaired(b, head)
		case n > 0:
			u.start = n
			u.private = u.private || head.ConnectionAuth
			return b.From[:n], nil
		}
		if err := u.readMore(b); err != nil {
			return nil, err
		}
	}
}

// readMore reads more of a head, within its limit. It keeps b.
func (u *HTTP1Conn) readMore(b *socket.Buffers) error {
	limit := int(u.transport.options.HeadBytes)
	if u.end >= limit {
		u.transport.refused.report(http1.Fault{Rule: http1.ErrHeadTooLong.Reason, Offset: limit})
		return http1.ErrResponseTooLong
	}
	for {
		n, err := u.wire.Read(b.From[u.end:max(limit, socket.ResponseBufferBytes)])
		u.end += n
		switch {
		case n > 0:
			return nil
		case !u.wokenInError(err):
			return err
		}
	}
}

// StartBody implements [Conn].
func (u *HTTP1Conn) StartBody(b *socket.Buffers, head *http1.ResponseHead, text []byte, bodiless bool) error {
	u.begun, u.persistent = false, head.Persistent() && !u.repaired
	if head.KeepAlive {
		u.idleTimeout = announcedIdle(head.Find(text, http1.NameKeepAlive), u.idleTimeout, u.transport.options.IdleTimeout)
	}
	u.response = transfer.Reader{Chunked: head.Chunked, Left: head.ContentLength, Lenient: true}
	switch {
	case bodiless:
		u.response = transfer.Reader{}
	case head.Chunked:
		u.response.Left = 0
	case head.ContentLength >= 0:
		return u.awaitBodyStart(b)
	default:
		u.persistent = false
	}
	if !bodiless && u.start == u.end {
		u.acknowledge()
	}
	return nil
}

// announcedIdle returns the idle timeout that the peer announces (Keep-Alive: timeout=5), less a
// second of margin, or most. If it announces none, it is as before.
func announcedIdle(keepAlive []byte, before, most time.Duration) time.Duration {
	seconds, ok := keepAliveTimeout(keepAlive)
	if !ok {
		return before
	}
	return min(most, max(time.Duration(seconds-1)*time.Second, time.Second/2))
}

// keepAliveTimeout parses the timeout parameter of a Keep-Alive field.
func keepAliveTimeout(value []byte) (seconds int, ok bool) {
	const parameter = "timeout="
	for i := 0; i+len(parameter) < len(value); i++ {
		if !http1.EqualFold(value[i:i+len(parameter)], parameter) {
			continue
		}
		for _, c := range value[i+len(parameter):] {
			if c < '0' || c > '9' || seconds > 1e6 {
				break
			}
			seconds, ok = seconds*10+int(c-'0'), true
		}
		return seconds, ok
	}
	return 0, false
}

// ReadBody implements [transfer.Source].
func (u *HTTP1Conn) ReadBody(b *socket.Buffers, coded bool) (p transfer.Piece, err error) {
	if u.begun && u.start == u.end {
		if err := u.fill(b, mostOf(&u.response)); err != nil {
			if err == socket.ErrClosedEarly && u.response.Left < 0 {
				return transfer.Piece{Last: true}, nil
			}
			return p, err
		}
	}
	u.begun = true
	p, n, err := u.response.Next(b.From[u.start:u.end], coded)
	if u.start += n; err != nil {
		u.transport.refused.reportBody(err, u.response.Length())
	}
	return p, err
}

// mostOf returns how many bytes to read for the next piece of a response.
func mostOf(r *transfer.Reader) int {
	if !r.Chunked && r.Left > 0 {
		return int(min(r.Left, socket.RelayBufferBytes))
	}
	return socket.RelayBufferBytes
}

// BodyPauses implements [Conn]. The end of the connection is for ReadBody.
func (u *HTTP1Conn) BodyPauses(b *socket.Buffers, patience time.Duration) (bool, error) {
	if u.start < u.end {
		return false, nil
	}
	u.wire.Conn.SetReadDeadline(time.Now().Add(patience))
	n, err := u.reader.Read(u.wire, b, 0, mostOf(&u.response))
	u.start, u.end = 0, n
	switch {
	case err != nil && u.wokenInError(err):
		return true, nil
	case n == 0 && err != io.EOF:
		return false, err
	}
	if !u.entry.ResumeRead() {
		u.wire.Conn.SetDeadline(socket.ALongTimeAgo)
	}
	return false, nil
}

// SourceSocket implements [transfer.Source].
func (u *HTTP1Conn) SourceSocket() (socket.Side, *transfer.Reader) {
	if u.wire.TLS != nil {
		return socket.Side{}, nil
	}
	return u.sinkSide(), &u.response
}

// bodyStartTimeout bounds the delay of a response by awaitBodyStart. A client can do little
// with a head alone, and a peer without a processor may need some time between the two.
const bodyStartTimeout = 100 * time.Millisecond

// awaitBodyStart waits for the body of a response with a Content-Length before any
// byte is sent to the client: for the whole body if it fits into the buffer with the
// head, otherwise for its first bytes, and at most for bodyStartTimeout.
//
// Many servers send head and body separately. If the server fails between the two,
// the request can still be retried, or answered with a 502.
func (u *HTTP1Conn) awaitBodyStart(b *socket.Buffers) error {
	room := max(socket.ResponseBufferBytes, u.start+1)
	enough := u.start + int(min(u.response.Left, 1))
	if all := int64(u.start) + u.response.Left; all <= int64(room) {
		enough = int(all)
	}
	if u.end >= enough {
		return nil
	}
	u.acknowledge()
	end := time.Now().Add(bodyStartTimeout)
	for u.end < enough {
		n, err := u.readBy(end, b.From[u.end:room])
		u.end += n
		switch {
		case n > 0:
		// The head was in time.
		case err == errNotYet, errors.Is(err, os.ErrDeadlineExceeded) && !u.entry.Interrupted.Load():
			return nil
		case err == io.EOF:
			return socket.ErrClosedEarly
		default:
			return err
		}
	}
	return nil
}

// acknowledge sends delayed acknowledgements. A peer that sends head and body
// separately may delay the body until the head is acknowledged (Nagle's algorithm),
// and the kernel delays that for up to 40 ms.
func (u *HTTP1Conn) acknowledge() {
	u.wire.Raw.Control(socket.AcknowledgeNow)
}

// errNotYet ends a short wait in which nothing has arrived.
var errNotYet = errors.New("nothing has arrived yet")

// readBy is read that fails with errNotYet at the time end.
func (u *HTTP1Conn) readBy(end time.Time, b []byte) (int, error) {
	u.wire.Conn.SetReadDeadline(end)
	n, err := u.wire.Read(b)
	if err != nil && u.wokenInError(err) {
		return n, errNotYet
	}
	u.wire.Conn.SetReadDeadline(time.Time{})
	if u.entry.Interrupted.Load() { // a concurrent interrupt may have set that deadline
		u.wire.Conn.SetDeadline(socket.ALongTimeAgo)
	}
	return n, err
}
