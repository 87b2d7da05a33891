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

	"sluice/certificates"
	"sluice/discovery"
	"sluice/discovery/locality"
)

// Probe checks whether an address works. It is safe for concurrent use.
type Probe interface {
	// Check returns nil if the target works before ctx ends. The same fault gives
	// the same error text.
	Check(ctx context.Context, t Target) error
	// Forget closes the connection to an address that is no longer checked.
	Forget(address string)
	// Close closes all connections.
	Close()
	// String describes the probe, such as "http GET /health".
	String() string
}

// Target is what a probe connects to.
type Target struct {
	Address string // "host:port" or "unix:/path"
	// Instance is for the terms of TLS. An answer by HTTP that says that it is from another one
	// fails the check.
	Instance discovery.Instance
	// Control is of who has named the address: it may refuse what the address is resolved to.
	Control locality.Control
}

// dialer opens the connections of checks.
type dialer struct {
	tls      certificates.Security // nil: plain
	protocol string                // by ALPN; "": none
}

// errNoHTTP2 is the error of a peer that agrees to no protocol, or to another one.
var errNoHTTP2 = errors.New("TLS handshake: the peer does not agree to HTTP/2")

// dial connects to the target, with a TLS handshake if configured.
func (d dialer) dial(ctx context.Context, t Target) (net.Conn, error) {
	network, address := discovery.NetworkOf(t.Address)
	dialer := locality.NewDialer(t.Control, 0)
	connection, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, failure("connect", err)
	}
	if d.tls == nil {
		return connection, nil
	}
	terms, err := d.tls.TermsFor(&t.Instance)
	if err != nil {
		connection.Close()
		return nil, err
	}
	config := terms.Config
	if d.protocol != "" {
		config.NextProtos = []string{d.protocol}
	}
	if config.ServerName == "" {
		config.ServerName = discovery.Authority(t.Address)
		if host, _, err := net.SplitHostPort(t.Address); err == nil {
			config.ServerName = host
		}
	}
	secured := tls.Client(connection, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		connection.Close()
		return nil, failure("TLS handshake", err)
	}
	if d.protocol != "" && !terms.ByPriorKnowledge && secured.ConnectionState().NegotiatedProtocol != d.protocol {
		secured.Close()
		return nil, errNoHTTP2
	}
	return secured, nil
}

// A deadline in the past, and none.
var longAgo, noDeadline = time.Unix(1, 0), time.Time{}

// bound ends every use of the connection with ctx, until the caller calls release.
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

// failure adds the step of a check to err, and removes details that change between
// checks, such as the local port.
func failure(step string, err error) error {
	var timeout net.Error
	var wrong syscall.Errno
	var name *net.DNSError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%s: timed out", step)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, net.ErrClosed): // net/http closes it too, once it finds that the peer has
		return fmt.Errorf("%s: connection closed", step)
	case errors.As(err, &wrong):
		return fmt.Errorf("%s: %w", step, wrong)
	case errors.As(err, &name):
		return fmt.Errorf("%s: no such host %s", step, name.Name)
	}
	return fmt.Errorf("%s: %w", step, err)
}
