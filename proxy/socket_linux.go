package proxy

import (
	"syscall"
	"time"
	"unsafe"
)

// The calls below never block, so the scheduler need not be told of them:
// RawSyscall saves its bookkeeping.

// receive reads what the socket has, at most len(b) > 0 bytes. It returns
// (0, nil) at the end of the stream.
func receive(fd uintptr, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd,
			uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != syscall.EINTR {
			return 0, socketError(errno)
		}
	}
}

// send writes what the socket has room for of b.
func send(fd uintptr, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd,
			uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != syscall.EINTR {
			return 0, socketError(errno)
		}
	}
}

// quiet reports whether the socket is open and has nothing to read: what an
// idle connection to a peer must be to be used again. Nothing is consumed.
func quiet(fd uintptr) bool {
	_, errno := peek(fd)
	return errno == syscall.EAGAIN
}

// ended reports whether the other side has closed the connection, or it broke,
// and nothing is left to read. Nothing is consumed.
func ended(fd uintptr) bool {
	n, errno := peek(fd)
	return errno == 0 && n == 0 || errno != 0 && errno != syscall.EAGAIN && errno != syscall.EINTR
}

func peek(fd uintptr) (n uintptr, errno syscall.Errno) {
	var b [1]byte
	n, _, errno = syscall.RawSyscall6(syscall.SYS_RECVFROM, fd,
		uintptr(unsafe.Pointer(&b[0])), 1, syscall.MSG_DONTWAIT|syscall.MSG_PEEK, 0, 0)
	return n, errno
}

// acknowledgeNow sends an acknowledgement that is being held back (tcp(7),
// TCP_QUICKACK).
func acknowledgeNow(fd uintptr) {
	syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
}

func setListenerOptions(fd int, keepAlive time.Duration) error {
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, int(keepAlive.Seconds())); err != nil {
		return err
	}
	return syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT, 1) // second
}
