package socket

import (
	"errors"
	"io"
	"syscall"
)

// ErrTooLong means that a prelude exceeds its limit.
var ErrTooLong = errors.New("too long")

// A prelude is the start of a connection that sluice reads before it knows what follows:
// a PROXY header or a ClientHello. AwaitPrelude leaves it in the socket, so that what
// follows it is not lost, and what reads it next finds it.
//
// AwaitPrelude waits until complete returns true or an error for the bytes that have
// arrived, which it may use until it returns; there are most at most, up to
// RequestBufferBytes. It has no memory while it waits. The caller has set the deadline of e.
func AwaitPrelude(e *SweepEntry, raw syscall.RawConn, s *Sweeper, most int, complete func([]byte) (bool, error)) (err error) {
	onReadable := func(fd uintptr) bool {
		borrowed := RequestBuffers.Get().(*Buffer)
		defer RequestBuffers.Put(borrowed)
		b := borrowed.Bytes[:most]
		var n int
		var done bool
		n, err = look(fd, b)
		switch {
		case err == ErrWouldBlock:
			err = nil
			return false
		case err == nil && n == 0:
			err = io.EOF
		case err == nil:
			if done, err = complete(b[:n]); done || err != nil {
				return true
			}
			if n == len(b) {
				err = ErrTooLong
			} else if hungUp(fd) { // no more bytes will arrive
				err = ErrClosedEarly
			}
		}
		return err != nil
	}
	if waitErr := e.read(s, raw, onReadable); waitErr != nil {
		return waitErr
	}
	return err
}

// Discard removes n bytes, which have arrived, from a socket.
func Discard(raw syscall.RawConn, n int) error {
	borrowed := RequestBuffers.Get().(*Buffer)
	defer RequestBuffers.Put(borrowed)
	var err error
	controlErr := raw.Control(func(fd uintptr) {
		for n > 0 && err == nil {
			var taken int
			taken, err = Receive(fd, borrowed.Bytes[:min(n, len(borrowed.Bytes))])
			if n -= taken; taken == 0 && err == nil {
				err = ErrClosedEarly
			}
		}
	})
	return errors.Join(controlErr, err)
}
