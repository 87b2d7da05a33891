package socket

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"sluice/discovery"
)

// Dial opens a connection to the address of a peer within timeout of coarse time. So a pause
// of the whole process, after which the dialer finds its own timeout over before it sees that the
// connection is open, is no failure of the peer.
func Dial(ctx context.Context, s *Sweeper, address string, timeout time.Duration, control func(context.Context, string, string, syscall.RawConn) error) (Conn, error) {
	start := s.Now()
	network, address := discovery.Endpoint(address)
	dialer := net.Dialer{Timeout: max(timeout, time.Millisecond), ControlContext: control}
	for {
		conn, err := dialer.DialContext(ctx, network, address)
		if err == nil {
			return conn.(Conn), nil
		}
		dialer.Timeout = timeout - time.Duration(s.Now()-start)
		if failure, ok := errors.AsType[net.Error](err); !ok || !failure.Timeout() || ctx.Err() != nil || dialer.Timeout < 2*SweepInterval {
			return nil, err
		}
	}
}
