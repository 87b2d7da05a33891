package proxy

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// A side is the connection to the client or the peer of an exchange.
type side struct {
	raw     syscall.RawConn
	entry   *sweepEntry
	sweeper *sweeper
	timeout time.Duration // the longest pause
	// blockedBy, if not nil, is the other connection of the exchange. While a write
	// to it waits, this side may not take bytes, so its timeout does not run.
	blockedBy *sweepEntry
}

// paceChecks is the number of attempts to write within a timeout. A timeout acts
// late by at most one interval.
const paceChecks = 8

// A pace times out a side that takes no bytes. A slow side must not time out, but
// the kernel wakes a writer only when a third of the socket buffer is free, which
// may be megabytes. Therefore the writer also tries at intervals.
type pace struct {
	waited bool  // a write had to wait; the user resets it
	end    int64 // coarse time of the timeout
}

// wait is called when the socket buffer is full, and reports whether to wait.
// moved: bytes were written since the last wait.
func (p *pace) wait(to *side, moved bool) bool {
	now := to.sweeper.now()
	switch {
	case moved, to.blockedBy != nil && to.blockedBy.writeDeadline.Load() != 0:
		p.end = now + int64(to.timeout)
	case p.end <= now:
		return false
	}
	p.waited = true
	interval := max(to.timeout/paceChecks, sweepInterval)
	to.entry.armWrite(min(now+int64(interval), p.end))
	return true
}

// A writer writes to a side until its pace times out. It is reusable.
type writer struct {
	pace   pace
	to     side
	b      []byte // unwritten bytes
	moved  bool   // bytes were written since the last wait
	err    error
	onRoom func(fd uintptr) bool // send as a value: creating it allocates
}

// write writes all of b, or returns the number of written bytes and an error.
func (w *writer) write(to side, b []byte) (n int, err error) {
	if w.onRoom == nil {
		w.onRoom = w.send
	}
	w.to, w.b, w.moved, w.err = to, b, true, nil
	for {
		err = to.raw.Write(w.onRoom)
		if err == nil {
			err = w.err
		} else if errors.Is(err, os.ErrDeadlineExceeded) && to.entry.resumeWrite() {
			continue
		}
		to.entry.writeDeadline.Store(0)
		n = len(b) - len(w.b)
		w.to, w.b = side{}, nil
		return n, err
	}
}

// writeSealed is write, encrypted with secure; nil: without TLS. If nothing was written,
// n is 0.
func (w *writer) writeSealed(to side, secure *tlsConn, b []byte) (n int, err error) {
	if secure == nil {
		return w.write(to, b)
	}
	records := sealBuffers.Get().(*buffer)
	defer sealBuffers.Put(records)
	for n < len(b) && err == nil {
		var sealed []byte
		part := b[n:min(n+sealBytes, len(b))]
		if sealed, err = secure.seal(part, records); err != nil {
			return n, err
		}
		var written int
		if written, err = w.write(to, sealed); written > 0 {
			n += len(part)
		}
	}
	return n, err
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
