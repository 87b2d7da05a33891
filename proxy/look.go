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
// a PROXY header or a ClientHello. lookAt leaves it in the socket, so that what follows
// it is not lost, and what reads it next finds it.
//
// lookAt waits until complete returns true or an error for the bytes that have arrived, at
// most len(b), and returns them. The caller has set the deadline of e.
func lookAt(e *sweepEntry, raw syscall.RawConn, s *sweeper, b []byte, complete func([]byte) (bool, error)) (prelude []byte, err error) {
	defer e.disarm()
	n := 0
	onReadable := func(fd uintptr) bool {
		var done bool
		n, err = look(fd, b)
		switch {
		case err == errWouldBlock:
			n, err = 0, nil
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
			return b[:n], err
		case !errors.Is(waitErr, os.ErrDeadlineExceeded) || e.expired(s):
			return b[:n], waitErr
		}
	}
}

// take removes n bytes, which have arrived, from a socket.
func take(raw syscall.RawConn, b []byte) error {
	var err error
	controlErr := raw.Control(func(fd uintptr) {
		for taken := 0; taken < len(b) && err == nil; {
			var n int
			n, err = receive(fd, b[taken:])
			if taken += n; n == 0 && err == nil {
				err = errClosedEarly
			}
		}
	})
	return errors.Join(controlErr, err)
}
