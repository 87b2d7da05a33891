//go:build unix && !linux

package socket

import (
	"syscall"
	"time"
)

// See socket_linux.go for the specification.

func Receive(FD uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(FD), b)
		if err == nil {
			return n, nil
		}
		if err != syscall.EINTR {
			return 0, socketError(err.(syscall.Errno))
		}
	}
}

func Send(FD uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Write(int(FD), b)
		if err == nil {
			return n, nil
		}
		if err != syscall.EINTR {
			return 0, socketError(err.(syscall.Errno))
		}
	}
}

func Quiet(FD uintptr) bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(FD), b[:], syscall.MSG_PEEK)
	return err == syscall.EAGAIN
}

func Ended(FD uintptr, TLS bool) bool {
	var b [1]byte
	n, _, err := syscall.Recvfrom(int(FD), b[:], syscall.MSG_PEEK)
	return err == nil && n == 0 || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
}

func look(FD uintptr, b []byte) (int, error) {
	for {
		n, _, err := syscall.Recvfrom(int(FD), b, syscall.MSG_PEEK)
		if err == nil {
			return n, nil
		}
		if err != syscall.EINTR {
			return 0, socketError(err.(syscall.Errno))
		}
	}
}

// hungUp does not know: a wait ends with its timeout.
func hungUp(FD uintptr) bool { return false }

func AcknowledgeNow(FD uintptr) {}

// setListenerOptions does nothing: the options have other names on each system.
func setListenerOptions(FD int, keepAlive time.Duration) error { return nil }

// setDeferAccept does nothing: only Linux has the option.
func setDeferAccept(FD, seconds int) error { return nil }
