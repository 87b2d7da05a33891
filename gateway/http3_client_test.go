package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"sluice/test/http3test"
)

// An http3Client sends requests with HTTP/3, all on one connection. Like a browser, it repeats what
// the server has not got or has rejected, and may use TCP where there is no HTTP/3.
type http3Client struct {
	transport http3test.Client
	byTCP     http.RoundTripper // nil: none

	mu sync.Mutex
	// mu guards the fields below.
	inUse int // requests and the bodies of their answers
	conns []*quic.Conn
}

// unreachable is the error of who finds no HTTP/3, and may use TCP.
type unreachable struct{ error }

// newHTTP3Client returns a client whose dial function may return unreachable.
func newHTTP3Client(byTCP http.RoundTripper, dial func(context.Context, *quic.Config) (*quic.Conn, error)) *http3Client {
	c := &http3Client{byTCP: byTCP}
	c.transport.Transport = http3.Transport{
		DisableCompression: true, TLSClientConfig: new(tls.Config),
		QUICConfig: &quic.Config{MaxIncomingStreams: -1, KeepAlivePeriod: 10 * time.Second, HandshakeIdleTimeout: 10 * patience, MaxIdleTimeout: 10 * patience},
		Dial: func(ctx context.Context, _ string, _ *tls.Config, config *quic.Config) (*quic.Conn, error) {
			conn, err := dial(ctx, config)
			if err == nil {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.conns = append(c.conns, conn)
			}
			return conn, err
		},
	}
	return c
}

// dialHTTP3 connects an address of this machine to one of a server. The connection has a socket of
// its own, so the addresses of both ends are those of no other one.
func dialHTTP3(ctx context.Context, from net.IP, to net.Addr, secure *tls.Config, config *quic.Config) (*quic.Conn, error) {
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: from})
	if err != nil {
		return nil, err
	}
	at := to.(*net.TCPAddr)
	secure.NextProtos = []string{http3.NextProtoH3}
	conn, err := quic.Dial(ctx, udp, &net.UDPAddr{IP: at.IP, Port: at.Port}, secure, config)
	if err != nil {
		udp.Close()
		return nil, err
	}
	context.AfterFunc(conn.Context(), func() { udp.Close() })
	return conn, nil
}

func (c *http3Client) RoundTrip(r *http.Request) (*http.Response, error) {
	c.use(1)
	response, err := c.transport.RoundTrip(r)
	if errors.As(err, new(unreachable)) && c.byTCP != nil && r.Method != http.MethodConnect {
		if r, err = http3test.Again(r, err); err == nil {
			response, err = c.byTCP.RoundTrip(r)
		}
	}
	if err != nil {
		c.use(-1)
		return nil, err
	}
	response.Body = &http3Body{ReadCloser: response.Body, closed: sync.OnceFunc(func() { c.use(-1) })}
	return response, nil
}

type http3Body struct {
	io.ReadCloser
	closed func()
}

func (b *http3Body) Close() error {
	b.closed()
	return b.ReadCloser.Close()
}

func (c *http3Client) use(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inUse += n
}

// CloseIdleConnections closes all connections if no request uses one of them. That of
// http3.Transport would cut bodies, and does not know each of them.
func (c *http3Client) CloseIdleConnections() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inUse > 0 {
		return
	}
	c.transport.CloseIdleConnections()
	for _, conn := range c.conns {
		conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	}
	c.conns = nil
}
