package proxy

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"sluice/discovery"
)

// dialPeer opens a connection to the address of a peer within timeout of coarse time. So a pause
// of the whole process, after which the dialer finds its own timeout over before it sees that the
// connection is open, is no failure of the peer.
func dialPeer(ctx context.Context, s *sweeper, address string, timeout time.Duration, control func(context.Context, string, string, syscall.RawConn) error) (socketConn, error) {
	start := s.now()
	network, address := discovery.Endpoint(address)
	dialer := net.Dialer{Timeout: max(timeout, time.Millisecond), ControlContext: control}
	for {
		conn, err := dialer.DialContext(ctx, network, address)
		if err == nil {
			return conn.(socketConn), nil
		}
		dialer.Timeout = timeout - time.Duration(s.now()-start)
		var failure net.Error
		if !errors.As(err, &failure) || !failure.Timeout() || ctx.Err() != nil || dialer.Timeout < 2*sweepInterval {
			return nil, err
		}
	}
}
