package socket

import (
	"syscall"
	"time"
	"unsafe"
)

// The system calls below never block, so RawSyscall saves the bookkeeping of the
// scheduler.

// Receive reads into b, which is not empty, without waiting. It returns (0, nil) at
// the end of the stream.
func Receive(fd uintptr, b []byte) (int, error) {
	return move(syscall.SYS_RECVFROM, fd, b, syscall.MSG_DONTWAIT)
}

// Send writes the part of b that fits the socket buffer.
func Send(fd uintptr, b []byte) (int, error) {
	return move(syscall.SYS_SENDTO, fd, b, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

// move makes the system call again if a signal has interrupted it.
func move(call, fd uintptr, b []byte, flags uintptr) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != syscall.EINTR {
			return 0, socketError(errno)
		}
	}
}

// Quiet reports whether the socket is open and has no bytes to read, so that an idle
// connection to a peer is reusable. It consumes nothing.
func Quiet(fd uintptr) bool {
	_, errno := peek(fd)
	return errno == syscall.EAGAIN
}

// Ended reports whether the connection is broken, or closed and has no bytes to read;
// with TLS, no bytes except a close_notify record. It consumes nothing.
func Ended(fd uintptr, tls bool) bool {
	n, errno := peek(fd)
	switch {
	case tls && errno == 0 && n <= closeNotifyBytes:
		return hungUp(fd)
	case errno == 0 && n > 0: // a reset leaves the bytes that came before
		return polled(fd)&(pollErr|pollHup) != 0
	}
	return errno == 0 && n == 0 || errno != 0 && errno != syscall.EAGAIN && errno != syscall.EINTR
}

// closeNotifyBytes is the maximum length of a close_notify record, except for CBC
// suites. A request is longer.
const closeNotifyBytes = 31

// hungUp reports whether the other side has closed its sending side. Unread bytes do
// not matter.
func hungUp(fd uintptr) bool { return polled(fd) != 0 }

const (
	pollErr   = 0x8
	pollHup   = 0x10
	pollRdHup = 0x2000
)

// polled returns which of pollErr, pollHup and pollRdHup hold.
func polled(fd uintptr) int16 {
	poll := struct {
		fd              int32
		events, revents int16
	}{fd: int32(fd), events: pollRdHup}
	var now syscall.Timespec
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return poll.revents
}

// peek returns the number of readable bytes, at most closeNotifyBytes+1.
func peek(fd uintptr) (n uintptr, errno syscall.Errno) {
	var b [closeNotifyBytes + 1]byte
	n, _, errno = syscall.RawSyscall6(syscall.SYS_RECVFROM, fd,
		uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), syscall.MSG_DONTWAIT|syscall.MSG_PEEK, 0, 0)
	return n, errno
}

// look is receive without consuming the bytes.
func look(fd uintptr, b []byte) (int, error) {
	return move(syscall.SYS_RECVFROM, fd, b, syscall.MSG_DONTWAIT|syscall.MSG_PEEK)
}

// AcknowledgeNow sends delayed acknowledgements (tcp(7), TCP_QUICKACK).
func AcknowledgeNow(fd uintptr) {
	syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
}

func setListenerOptions(fd int, keepAlive time.Duration) error {
	return syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, int(keepAlive.Seconds()))
}

func setDeferAccept(fd, seconds int) error {
	return syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT, seconds)
}
