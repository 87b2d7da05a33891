package socket

import (
	"context"
	"errors"
	"net"
	"time"

	"sluice/discovery"
	"sluice/discovery/locality"
)

// Dial opens a connection to the address of a peer within timeout of coarse time. So a pause
// of the whole process, after which the dialer finds its own timeout over before it sees that the
// connection is open, is no failure of the peer.
func Dial(ctx context.Context, s *Sweeper, address string, timeout time.Duration, control locality.Control) (Conn, error) {
	start := s.Now()
	network, address := discovery.NetworkOf(address)
	dialer := locality.NewDialer(control, max(timeout, time.Millisecond))
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
