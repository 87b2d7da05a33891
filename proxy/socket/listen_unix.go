//go:build unix

package socket

import (
	"context"
	"net"
	"syscall"
	"time"
)

// keepAlive is the idle time before the first TCP keep-alive probe. The interval and
// the number of probes are the kernel's defaults.
const keepAlive = 60 * time.Second

// Listen is net.Listen for clients. Connections inherit the keep-alive options of the
// listener, which saves Go four system calls for each. Multipath TCP is off, since it
// slows down accepting. With the network "unix" it is ListenSocket.
func Listen(network, address string) (net.Listener, error) {
	if network == "unix" {
		return ListenSocket(address)
	}
	config := net.ListenConfig{
		KeepAlive: -1, // set on the listener below
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			controlErr := raw.Control(func(fd uintptr) {
				if err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1); err == nil {
					err = setListenerOptions(int(fd), keepAlive)
				}
			})
			if controlErr != nil {
				return controlErr
			}
			return err
		},
	}
	config.SetMultipathTCP(false)
	return config.Listen(context.Background(), network, address)
}

// DeferAccept sets whether a connection on l is accepted when its first bytes have
// arrived, or after a second, on Linux. That saves a wait if the client sends first.
func DeferAccept(l net.Listener, on bool) {
	conn, ok := l.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	seconds := 0
	if on {
		seconds = 1
	}
	// Without the option everything works too.
	_ = raw.Control(func(fd uintptr) { _ = setDeferAccept(int(fd), seconds) })
}
