package proxy

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// errTooLong means that a prelude exceeds its limit.
var errTooLong = errors.New("too long")

// A prelude is the start of a connection that sluice reads before it knows what follows:
// a PROXY header or a ClientHello. awaitPrelude leaves it in the socket, so that what
// follows it is not lost, and what reads it next finds it.
//
// awaitPrelude waits until complete returns true or an error for the bytes that have
// arrived, which it may use until it returns; there are most at most, up to
// requestBufferBytes. It has no memory while it waits. The caller has set the deadline of e.
func awaitPrelude(e *sweepEntry, raw syscall.RawConn, s *sweeper, most int, complete func([]byte) (bool, error)) (err error) {
	onReadable := func(fd uintptr) bool {
		borrowed := requestBuffers.Get().(*buffer)
		defer requestBuffers.Put(borrowed)
		b := borrowed.bytes[:most]
		var n int
		var done bool
		n, err = look(fd, b)
		switch {
		case err == errWouldBlock:
			err = nil
			return false
		case err == nil && n == 0:
			err = io.EOF
		case err == nil:
			if done, err = complete(b[:n]); done || err != nil {
				return true
			}
			if n == len(b) {
				err = errTooLong
			} else if hungUp(fd) { // no more bytes will arrive
				err = errClosedEarly
			}
		}
		return err != nil
	}
	for {
		waitErr := raw.Read(onReadable)
		switch {
		case waitErr == nil:
			return err
		case !errors.Is(waitErr, os.ErrDeadlineExceeded) || e.expired(s):
			return waitErr
		}
	}
}

// take removes n bytes, which have arrived, from a socket.
func take(raw syscall.RawConn, n int) error {
	borrowed := requestBuffers.Get().(*buffer)
	defer requestBuffers.Put(borrowed)
	var err error
	controlErr := raw.Control(func(fd uintptr) {
		for n > 0 && err == nil {
			var taken int
			taken, err = receive(fd, borrowed.bytes[:min(n, len(borrowed.bytes))])
			if n -= taken; taken == 0 && err == nil {
				err = errClosedEarly
			}
		}
	})
	return errors.Join(controlErr, err)
}
