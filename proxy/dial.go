package proxy

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

// dialPeer opens a TCP connection within timeout of coarse time. So a pause of the whole
// process, after which the dialer finds its own timeout over before it sees that the
// connection is open, is no failure of the peer.
func dialPeer(ctx context.Context, s *sweeper, address string, timeout time.Duration, control func(context.Context, string, string, syscall.RawConn) error) (*net.TCPConn, error) {
	start := s.now()
	dialer := net.Dialer{Timeout: max(timeout, time.Millisecond), ControlContext: control}
	for {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		dialer.Timeout = timeout - time.Duration(s.now()-start)
		var failure net.Error
		if !errors.As(err, &failure) || !failure.Timeout() || ctx.Err() != nil || dialer.Timeout < 2*sweepInterval {
			return nil, err
		}
	}
}
