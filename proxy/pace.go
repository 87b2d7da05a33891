package proxy

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// A side is one of the two connections of an exchange.
type side struct {
	raw     syscall.RawConn
	entry   *sweepEntry
	sweeper *sweeper
	timeout time.Duration // the longest pause
	// excuse, if not nil, is a connection that is written to as well. As long as
	// its other side is waited for, this one may be waiting for the same.
	excuse *sweepEntry
}

func (c *clientConn) side(timeout time.Duration) side {
	return side{raw: c.raw, entry: &c.sweepEntry, sweeper: c.server.sweeper, timeout: timeout}
}

// peerSide is the connection to the peer. The peer need not take more of a
// request while its response waits for the client.
func (x *httpExchange) peerSide(u *upstreamConn) side {
	return side{u.raw, &u.sweepEntry, u.transport.sweeper, x.service.Timeouts.Idle, &x.client.sweepEntry}
}

// paceLooks is how often, within a timeout, it is tried whether the other side
// has taken anything. A timeout acts late by one look at most.
const paceLooks = 8

// A pace is that at which a side takes what is written to it. One that takes a
// little now and then must not time out. But the system wakes a writer only when
// a third of the socket's buffer is free, and that may be megabytes: so it is
// tried in between, too.
type pace struct {
	waited bool  // the side was waited for; the user resets it
	end    int64 // coarse time when it will have paused for too long
}

// wait is called where there is no room, and reports whether to wait for some.
// moved: something was written since the last wait.
func (p *pace) wait(to *side, moved bool) bool {
	now := to.sweeper.now()
	switch {
	case moved, to.excuse != nil && to.excuse.writeDeadline.Load() != 0:
		p.end = now + int64(to.timeout)
	case p.end <= now:
		return false
	}
	p.waited = true
	look := max(to.timeout/paceLooks, sweepInterval)
	to.entry.writeDeadline.Store(min(now+int64(look), p.end))
	return true
}

// A writer writes to one side, as long as that takes something now and then. Its
// memory is used again from one write to the next.
type writer struct {
	pace   pace
	to     side
	b      []byte // still to be written
	moved  bool   // something was written since the last wait
	err    error
	onRoom func(fd uintptr) bool // send, bound once
}

// write writes all of b, or returns how much of it.
func (w *writer) write(to side, b []byte) (n int, err error) {
	if w.onRoom == nil {
		w.onRoom = w.send
	}
	w.to, w.b, w.moved, w.err = to, b, true, nil
	for {
		err = to.raw.Write(w.onRoom)
		if err == nil {
			err = w.err
		} else if errors.Is(err, os.ErrDeadlineExceeded) && to.entry.writeOn() {
			continue
		}
		to.entry.writeDeadline.Store(0)
		n = len(b) - len(w.b)
		w.to, w.b = side{}, nil
		return n, err
	}
}

func (w *writer) send(fd uintptr) bool {
	for len(w.b) > 0 {
		n, err := send(fd, w.b)
		w.b = w.b[n:]
		w.moved = w.moved || n > 0
		switch {
		case err == errWouldBlock:
			if !w.pace.wait(&w.to, w.moved) {
				w.err = os.ErrDeadlineExceeded
				return true
			}
			w.moved = false
			return false
		case err != nil:
			w.err = err
			return true
		}
	}
	return true
}
