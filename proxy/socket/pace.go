package socket

import (
	"os"
	"syscall"
	"time"
)

// A Side is the connection to the client or the peer of an exchange.
type Side struct {
	Raw     syscall.RawConn
	Entry   *SweepEntry
	Sweeper *Sweeper
	Timeout time.Duration // the longest pause
	// BlockedBy, if not nil, is the other connection of the exchange. While a write
	// to it waits, this side may not take bytes, so its timeout does not run.
	BlockedBy *SweepEntry
}

// paceChecks is the number of attempts to write within a timeout. A timeout acts
// late by at most one interval.
const paceChecks = 8

// A Pace times out a side that takes no bytes. A slow side must not time out, but
// the kernel wakes a writer only when a third of the socket buffer is free, which
// may be megabytes. Therefore the writer also tries at intervals.
type Pace struct {
	Waited bool  // a write had to wait; the user resets it
	end    int64 // coarse time of the timeout
}

// wait is called when the socket buffer is full, and reports whether to wait.
// moved: bytes were written since the last wait.
func (p *Pace) wait(to *Side, moved bool) bool {
	now := to.Sweeper.Exact()
	switch {
	case moved, to.BlockedBy != nil && to.BlockedBy.WriteDeadline.Load() != 0:
		p.end = now + int64(to.Timeout)
	case p.end <= now:
		return false
	}
	p.Waited = true
	interval := max(to.Timeout/paceChecks, SweepInterval)
	to.Entry.ArmWrite(min(now+int64(interval), p.end))
	return true
}

// A Writer writes to a side until its pace times out. It is reusable.
type Writer struct {
	Pace   Pace
	to     Side
	b      []byte // unwritten bytes
	moved  bool   // bytes were written since the last wait
	err    error
	onRoom func(fd uintptr) bool // send as a value: creating it allocates
}

// Write writes all of b, or returns the number of written bytes and an error.
func (w *Writer) Write(to Side, b []byte) (n int, err error) {
	if w.onRoom == nil {
		w.onRoom = w.send
	}
	w.to, w.b, w.moved, w.err = to, b, true, nil
	if err = to.Entry.write(to.Raw, w.onRoom); err == nil {
		err = w.err
	}
	to.Entry.WriteDeadline.Store(0)
	n = len(b) - len(w.b)
	w.to, w.b = Side{}, nil
	return n, err
}

// WriteSealed is write, encrypted with secure; nil: without TLS. If nothing was written,
// n is 0.
func (w *Writer) WriteSealed(to Side, secure *TLSConn, b []byte) (n int, err error) {
	if secure == nil {
		return w.Write(to, b)
	}
	records := SealBuffers.Get().(*Buffer)
	defer SealBuffers.Put(records)
	err = secure.SealEach(b, records, func(sealed []byte) error {
		written, err := w.Write(to, sealed)
		if written > 0 {
			n = min(n+SealBytes, len(b))
		}
		return err
	})
	return n, err
}

func (w *Writer) send(fd uintptr) bool {
	for len(w.b) > 0 {
		n, err := Send(fd, w.b)
		w.b = w.b[n:]
		w.moved = w.moved || n > 0
		switch {
		case err == ErrWouldBlock:
			if !w.Pace.wait(&w.to, w.moved) {
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
