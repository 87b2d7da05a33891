//go:build unix && !linux

package socket

import (
	"syscall"
	"time"
)

// See socket_linux.go for the specification.

func Receive(FD uintptr, b []byte) (int, error) {
	return move(func() (int, error) { return syscall.Read(int(FD), b) })
}

func Send(FD uintptr, b []byte) (int, error) {
	return move(func() (int, error) { return syscall.Write(int(FD), b) })
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
	return move(func() (n int, err error) {
		n, _, err = syscall.Recvfrom(int(FD), b, syscall.MSG_PEEK)
		return n, err
	})
}

// move makes the system call again if a signal has interrupted it.
func move(call func() (int, error)) (int, error) {
	for {
		n, err := call()
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
