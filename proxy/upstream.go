package proxy

import (
	"bytes"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// errPatience: the time to wait for this peer alone is over. The exchange goes
// on.
var errPatience = errors.New("no answer yet")

// errSuspected: checks say that the peer does not work. The exchange goes on.
var errSuspected = errors.New("the peer is no longer trusted to answer")

// errStale: a connection that was idle turned out to be closed, or to hold
// bytes nobody asked for, before anything was sent on it.
var errStale = errors.New("idle connection is of no use any more")

// An upstreamConn is a connection to a peer. One exchange at a time works on it.
type upstreamConn struct {
	sweepEntry
	transport *Transport
	conn      *net.TCPConn
	raw       syscall.RawConn
	onSocket  func(fd uintptr) bool // step, bound once
	quickAck  func(fd uintptr)      // acknowledgeNow

	client atomic.Pointer[clientConn] // whom it works for
	watch  clientWatch

	used        bool // has served an exchange, so it may be stale
	drains      int  // the transport's, when the connection was opened
	idleTimeout time.Duration
	idleUntil   int64 // coarse time

	// The work of roundTrip.
	request  []byte // still to be sent
	body     []byte // to be sent after it
	sent     bool   // some of the request was sent
	response []byte // where to read
	n        int
	err      error
	woken    bool // before all of the request was sent

	// What the socket had no room for at first.
	rest     chan struct{} // closed when that is sent, or cannot be; nil: there was none
	restSent bool          // to be read after rest is closed

	patience time.Duration // how long roundTrip waits; 0: until the deadline
	leavable bool          // roundTrip waits no longer than the peer is trusted
	picked   time.Time     // when the peer was, for the present exchange
}

func newUpstreamConn(t *Transport, conn *net.TCPConn) (*upstreamConn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	u := &upstreamConn{transport: t, conn: conn, raw: raw, quickAck: acknowledgeNow, idleTimeout: t.options.IdleTimeout}
	u.onSocket = u.step
	u.onSweep = func(now int64) { u.watch.look(u, now) }
	return u, nil
}

func (u *upstreamConn) close() {
	u.remove()
	u.conn.Close()
	if u.rest != nil {
		<-u.rest
	}
}

// roundTrip sends request, and body after it, and reads the first bytes of the
// response into response. sent reports whether any byte of the request may have reached the
// peer. An error without sent is errStale, or that of a socket already dead.
//
// The peer may answer before it has got the whole body: then that goes on to be
// sent, and must not change, until the connection is released or discarded.
func (u *upstreamConn) roundTrip(request, body, response []byte) (n int, sent bool, err error) {
	u.request, u.body, u.response, u.sent = request, body, response, false
	u.n, u.err, u.woken, u.rest = 0, nil, false, nil
	if u.patience > 0 {
		u.conn.SetReadDeadline(time.Now().Add(u.patience))
		defer u.conn.SetReadDeadline(time.Time{})
	}
	for {
		err = u.raw.Read(u.onSocket)
		switch {
		case err != nil && u.wokenInError(err):
			if waiting := u.sent && len(u.request) == 0; !waiting {
				u.woken = true
			} else if err := u.noLonger(); err != nil {
				return 0, true, err
			}
		case err != nil:
			return 0, u.sent, err
		case u.err != nil:
			return 0, u.sent, u.err
		case len(u.request) > 0: // the socket is full
			if u.body != nil || body == nil {
				u.request = bytes.Clone(u.request) // the response's head takes its place
			}
			u.sendRest(u.request, u.body)
			u.request, u.body = nil, nil
		default:
			return u.n, true, nil
		}
	}
}

// sendRest sends what is left of a request, in a goroutine of its own: the peer
// may answer, and read no more, before it has got all.
func (u *upstreamConn) sendRest(parts ...[]byte) {
	done := make(chan struct{})
	u.rest, u.restSent = done, false
	go func() {
		defer close(done)
		for _, b := range parts {
			if _, err := u.write(b); err != nil {
				return // what the peer had to say is read by the other goroutine
			}
		}
		u.restSent = true
	}()
}

// allSent reports whether the whole request has been sent. It is called when the
// response is complete: see endsSoon.
func (u *upstreamConn) allSent() bool {
	return u.rest == nil || endsSoon(u.rest) && u.restSent
}

// endsSoon waits a moment for done. A goroutine that sends the last bytes of a
// request needs it to note that they are sent: a peer may well answer before it
// runs on.
func endsSoon(done <-chan struct{}) bool {
	timer := time.NewTimer(20 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// lastWords reads what the peer sent before it broke off the connection fd, once
// that was found out by writing: its answer may be among it.
func lastWords(fd uintptr, response []byte) int {
	n, _ := receive(fd, response)
	return n
}

// noLonger returns why a peer that has got the request is not waited for any
// longer; nil: whoever waits was woken in error.
func (u *upstreamConn) noLonger() error {
	switch {
	case u.leavable && u.transport.suspects(u):
		return errSuspected
	case u.patience > 0:
		return errPatience
	}
	return nil
}

// overdue is called when there is nothing to do but to wait, and reports whether
// the end of that has come before: u was woken while it still had to send.
func (u *upstreamConn) overdue() bool {
	if u.woken {
		u.woken = false
		u.err = u.noLonger()
	}
	return u.err != nil
}

// step does what can be done on the socket at once and reports whether
// roundTrip should go on; otherwise it is called again when there is something
// to read. It parks without having read only after it has sent, on a connection
// that was quiet before: on a new one the peer may have spoken already.
func (u *upstreamConn) step(fd uintptr) bool {
	for len(u.request) > 0 {
		if u.used && !u.sent && !quiet(fd) {
			u.err = errStale
			return true
		}
		n, err := send(fd, u.request)
		if n > 0 {
			u.sent = true
		}
		u.request = u.request[n:]
		if err != nil && err != errWouldBlock {
			if u.sent || !u.used {
				u.n = lastWords(fd, u.response)
			}
			if u.n == 0 {
				u.err = err
			}
			return true
		}
		if len(u.request) > 0 {
			return true
		}
		if u.request, u.body = u.body, nil; len(u.request) == 0 && u.used {
			return u.overdue()
		}
	}
	n, err := receive(fd, u.response)
	switch {
	case err == errWouldBlock:
		return u.overdue()
	case err != nil:
		u.err = err
	case n == 0:
		u.err = errClosedEarly
	}
	u.n = n
	return true
}

// acknowledge makes the system acknowledge what has arrived at once. A peer that
// sends the head of a response and its body separately may hold the body back
// until then (Nagle's algorithm), while we hold the acknowledgement back for
// up to 40 ms.
func (u *upstreamConn) acknowledge() {
	u.raw.Control(u.quickAck)
}

// read reads more of the response. At the end of the stream it returns io.EOF.
func (u *upstreamConn) read(b []byte) (int, error) {
	for {
		n, err := u.conn.Read(b)
		if n > 0 || err == nil || !u.wokenInError(err) {
			return n, err
		}
	}
}

// readBy is read for one who has better things to do than to wait beyond end:
// then the error is errPatience.
func (u *upstreamConn) readBy(end time.Time, b []byte) (int, error) {
	u.conn.SetReadDeadline(end)
	n, err := u.conn.Read(b)
	if err != nil && u.wokenInError(err) {
		return n, errPatience
	}
	u.conn.SetReadDeadline(time.Time{})
	if u.interrupted.Load() { // that may just have been taken back with it
		u.conn.SetDeadline(aLongTimeAgo)
	}
	return n, err
}

// write writes all of b, by the deadline of reading: it belongs to a round trip.
func (u *upstreamConn) write(b []byte) (int, error) {
	u.writeDeadline.Store(u.deadline.Load())
	defer u.writeDeadline.Store(0)
	written := 0
	for {
		n, err := u.conn.Write(b[written:])
		written += n
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || u.writeExpired(u.transport.sweeper) {
			return written, err
		}
	}
}

// wake makes whoever waits for the peer look around.
func (u *upstreamConn) wake() { u.conn.SetReadDeadline(aLongTimeAgo) }

// wokenInError reports whether err ended a wait whose deadline has not passed.
func (u *upstreamConn) wokenInError(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) && !u.expired(u.transport.sweeper)
}
