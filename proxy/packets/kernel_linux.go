package packets

import (
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// enlarge enlarges the buffers of a socket: beyond the limit of the machine, if this process may.
func enlarge(udp *net.UDPConn) {
	raw, err := udp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // smaller buffers do too: Counts tells the size
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, WantedBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, WantedBuffer)
		}
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, WantedBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, WantedBuffer)
		}
	})
}

// kernelCounts returns how many packets the kernel has dropped, and the size of its buffer, which
// counts its own structures too.
func kernelCounts(raw syscall.RawConn) (drops uint64, size int) {
	// The places of SK_MEMINFO_RCVBUF and SK_MEMINFO_DROPS, and the number of places, in
	// linux/sock_diag.h.
	const rcvbuf, dropped, places = 1, 8, 9
	var info [places]uint32
	length := uint32(unsafe.Sizeof(info))
	var errno syscall.Errno
	err := raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&length)), 0)
	})
	if err != nil || errno != 0 {
		return 0, 0
	}
	return uint64(info[dropped]), int(info[rcvbuf])
}
