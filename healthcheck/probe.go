package healthcheck

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Probe is one way to ask an address whether it works. It is safe for
// concurrent use.
type Probe interface {
	// Check asks the target until ctx ends and returns nil if it works. Else the
	// error says what is wrong in a few words, and the same words as long as the
	// same is wrong.
	Check(ctx context.Context, t Target) error
	// Forget closes what was kept for an address that is no longer checked.
	Forget(address string)
	// Close closes what was kept for any address.
	Close()
	// String says what the probe does, such as "http GET /health".
	String() string
}

// Target is what a probe connects to.
type Target struct {
	Address string // "host:port"
	// Control is that of net.Dialer: it may refuse what the host is resolved to.
	// May be nil.
	Control func(ctx context.Context, network, address string, c syscall.RawConn) error
}

// dialer opens the connections of checks, which are never those of requests.
type dialer struct {
	tls *TLS // nil: plain
}

// dial connects to the target, and shakes hands where TLS is spoken.
func (d dialer) dial(ctx context.Context, t Target) (net.Conn, error) {
	connection, err := (&net.Dialer{ControlContext: t.Control}).DialContext(ctx, "tcp", t.Address)
	if err != nil {
		return nil, failure("connect", err)
	}
	if d.tls == nil {
		return connection, nil
	}
	config := d.tls.current()
	if config.ServerName == "" {
		config = config.Clone()
		if config.ServerName, _, err = net.SplitHostPort(t.Address); err != nil {
			return nil, failure("connect", err)
		}
	}
	secured := tls.Client(connection, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		connection.Close()
		return nil, failure("TLS handshake", err)
	}
	return secured, nil
}

// Deadlines that have passed, and that never come.
var longAgo, noDeadline = time.Unix(1, 0), time.Time{}

// bound makes every use of the connection end with ctx. The caller calls
// release once it has ended; the connection then has no deadline.
func bound(ctx context.Context, connection net.Conn) (release func()) {
	if deadline, ok := ctx.Deadline(); ok {
		connection.SetDeadline(deadline)
	}
	cut := context.AfterFunc(ctx, func() { connection.SetDeadline(longAgo) })
	return func() {
		if cut() {
			connection.SetDeadline(noDeadline)
		}
	}
}

// failure says in which step of a check err came up. What changes from one
// check to the next, such as our own port, is left out.
func failure(step string, err error) error {
	var timeout net.Error
	var wrong syscall.Errno
	var name *net.DNSError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%s: timed out", step)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: connection closed", step)
	case errors.As(err, &wrong):
		return fmt.Errorf("%s: %w", step, wrong)
	case errors.As(err, &name):
		return fmt.Errorf("%s: no such host %s", step, name.Name)
	}
	return fmt.Errorf("%s: %w", step, err)
}
