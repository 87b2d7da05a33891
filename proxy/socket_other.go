//go:build unix && !linux

package proxy

import (
	"syscall"
	"time"
)

// See socket_linux.go for the specification.

func receive(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), b)
		if err == nil {
			return n, nil
		}
		if err != syscall.EINTR {
			return 0, socketError(err.(syscall.Errno))
		}
	}
}

func send(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), b)
		if err == nil {
			return n, nil
		}
		if err != syscall.EINTR {
			return 0, socketError(err.(syscall.Errno))
		}
	}
}

func quiet(fd uintptr) bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
	return err == syscall.EAGAIN
}

func ended(fd uintptr, tls bool) bool {
	var b [1]byte
	n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
	return err == nil && n == 0 || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
}

func look(fd uintptr, b []byte) (int, error) {
	for {
		n, _, err := syscall.Recvfrom(int(fd), b, syscall.MSG_PEEK)
		if err == nil {
			return n, nil
		}
		if err != syscall.EINTR {
			return 0, socketError(err.(syscall.Errno))
		}
	}
}

// hungUp does not know: a wait ends with its timeout.
func hungUp(fd uintptr) bool { return false }

func acknowledgeNow(fd uintptr) {}

// setListenerOptions does nothing: the options have other names on each system.
func setListenerOptions(fd int, keepAlive time.Duration) error { return nil }

// setDeferAccept does nothing: only Linux has the option.
func setDeferAccept(fd, seconds int) error { return nil }
