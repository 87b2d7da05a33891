package proxy

import (
	"net"
	"sync/atomic"
	"time"
)

// streamWaits wakes the waits of an HTTP/2 stream. It implements the deadlines of a
// net.Conn, for the socket.SweepEntry of the stream.
type streamWaits struct {
	net.Conn                         // nil
	readable, writable chan struct{} // wake the goroutine that waits
	readDue, writeDue  atomic.Bool   // a deadline may have passed
}

func newStreamWaits() *streamWaits {
	return &streamWaits{readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

func (w *streamWaits) SetReadDeadline(t time.Time) error {
	if w.readDue.Store(!t.IsZero()); !t.IsZero() {
		signal(w.readable)
	}
	return nil
}

func (w *streamWaits) SetWriteDeadline(t time.Time) error {
	if w.writeDue.Store(!t.IsZero()); !t.IsZero() {
		signal(w.writable)
	}
	return nil
}

func (w *streamWaits) SetDeadline(t time.Time) error {
	w.SetReadDeadline(t)
	return w.SetWriteDeadline(t)
}
