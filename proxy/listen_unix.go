//go:build unix

package proxy

import (
	"context"
	"net"
	"syscall"
	"time"
)

// keepAlive is after which silence a connection is probed, so that one whose
// other side is gone without a word is noticed; the interval and the number of
// probes are the system's.
const keepAlive = 60 * time.Second

// Listen is net.Listen for protocols in which the client speaks first, made for
// many connections. They inherit from the listener that their liveness is
// probed, where Go would set four options on each of them; there is no multipath
// TCP, which makes accepting slower; and on Linux a connection is accepted only
// when its first bytes are there, or after a second, so that a new connection
// costs one wait less.
func Listen(network, address string) (net.Listener, error) {
	config := net.ListenConfig{
		KeepAlive: -1, // not once more for each connection
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
