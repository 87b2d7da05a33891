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

// Listen is net.Listen for the listeners of a [Server]. Connections inherit from
// the listener that their liveness is probed, where Go would set four options
// on each of them, and there is no multipath TCP, which makes accepting slower.
func Listen(network, address string) (net.Listener, error) {
	config := net.ListenConfig{
		KeepAlive: -1, // not once more for each connection
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			controlErr := raw.Control(func(fd uintptr) {
				if err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1); err == nil {
					err = setKeepAliveIdle(int(fd), int(keepAlive.Seconds()))
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
