//go:build unix

package rolling

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"sluice/test/sluicetest"
)

// protocol is what a client uses.
type protocol string

const (
	plain   protocol = "HTTP/1.1" // without TLS
	https   protocol = "HTTPS/1.1"
	h2      protocol = "h2"  // HTTP/2 over TLS
	h2c     protocol = "h2c" // HTTP/2 without TLS
	h3      protocol = "h3"  // on persistent connections only
	grpcH2  protocol = "gRPC, h2"
	grpcH2C protocol = "gRPC, h2c"
)

// sender sends requests of a protocol, and never one twice. Its methods may be called concurrently.
type sender interface {
	// send sends a request, and checks that the answer belongs to it.
	send(id int, k kind, deadline time.Time) error
	// close closes the connections, when no request is in flight.
	close()
}

// target is where a load goes.
type target struct {
	address string      // of the listener without TLS
	secure  string      // of that with TLS
	tls     *tls.Config // for it
	host    string
}

// sender returns the sender of a protocol for requests with prefixes of body.
func (t target) sender(p protocol, body []byte) sender {
	switch p {
	case plain, https:
		return &http1Sender{dial: t.dialer(p), host: t.host, body: body}
	case h2, h2c:
		return &http2Sender{&sluicetest.HTTP2{Dial: t.dialer(p)}, t.host, body}
	case h3:
		return &http2Sender{&http3.Transport{TLSClientConfig: t.tls, Dial: t.dialHTTP3}, t.host, body}
	default:
		return newGRPCSender(t, p, body)
	}
}

func (t target) dialHTTP3(ctx context.Context, _ string, secure *tls.Config, config *quic.Config) (*quic.Conn, error) {
	return quic.DialAddr(ctx, t.secure, secure, config)
}

func (t target) dialer(p protocol) func(context.Context) (net.Conn, error) {
	secure, next := p == https || p == h2 || p == grpcH2, []string{"http/1.1"}
	if p == h2 {
		next = []string{"h2"}
	}
	return func(ctx context.Context) (net.Conn, error) {
		if !secure {
			return new(net.Dialer).DialContext(ctx, "tcp", t.address)
		}
		config := t.tls.Clone()
		config.NextProtos = next
		return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", t.secure)
	}
}
