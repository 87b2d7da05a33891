//lint:file-ignore SA1019 http.ClientConn opens its connections itself; this client begins HTTP/2 on the ones that Dial opens.

package sluicetest

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http2"
)

// HTTP2 is an [http.RoundTripper] for HTTP/2. Unlike the transports of net/http and x/net, it
// repeats no request that was refused. It repeats only a request that the end of its connection has
// crossed: one of which nothing was sent, and one with GetBody that a GOAWAY excludes. x/net may
// send such a request after it has confirmed the GOAWAY. It does not close the bodies of requests.
// Its methods may be called concurrently.
type HTTP2 struct {
	// Dial opens a connection, on which the client begins HTTP/2.
	Dial func(context.Context) (net.Conn, error)

	transport http2.Transport

	mu   sync.Mutex // guards the field below
	kept *http2.ClientConn
}

// RoundTrip implements [http.RoundTripper]. A request with Close has a connection of its own; all
// others share one, until the server ends it.
func (h *HTTP2) RoundTrip(r *http.Request) (*http.Response, error) {
	const connections = 5 // that end before the request
	for left := connections; ; left-- {
		conn, err := h.conn(r)
		if err != nil {
			return nil, err
		}
		var began atomic.Bool
		once := r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{WroteHeaders: func() { began.Store(true) }}))
		if r.Body != nil && r.Body != http.NoBody {
			once.Body = unclosed{r.Body}
		}
		response, err := conn.RoundTrip(once)
		if err == nil || left == 0 || began.Load() && !excluded(r, err) {
			return response, err
		}
		if r.GetBody != nil {
			if r.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
		}
		h.forget(conn)
	}
}

// excluded reports whether a GOAWAY excludes a request that can be sent again. The error of x/net
// has no name.
func excluded(r *http.Request, err error) bool {
	return (r.Body == nil || r.Body == http.NoBody || r.GetBody != nil) &&
		strings.Contains(err.Error(), "received Server's graceful shutdown GOAWAY")
}

// unclosed is a body that is read after an attempt that sent nothing.
type unclosed struct{ io.Reader }

func (unclosed) Close() error { return nil }

func (h *HTTP2) conn(r *http.Request) (*http2.ClientConn, error) {
	if r.Close {
		return h.open(r.Context())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.kept != nil && h.kept.CanTakeNewRequest() {
		return h.kept, nil
	}
	conn, err := h.open(r.Context())
	if err == nil {
		h.kept = conn
	}
	return conn, err
}

// forget makes later requests use another connection: this one has ended. x/net would use it for a
// request that fails, if it has had none.
func (h *HTTP2) forget(conn *http2.ClientConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.kept == conn {
		h.kept = nil
	}
}

func (h *HTTP2) open(ctx context.Context) (*http2.ClientConn, error) {
	conn, err := h.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return h.transport.NewClientConn(conn)
}

// CloseIdleConnections closes the shared connection, if requests are in flight after them.
func (h *HTTP2) CloseIdleConnections() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.kept != nil {
		h.kept.SetDoNotReuse()
		if h.kept.State().StreamsActive == 0 {
			h.kept.Close()
		}
		h.kept = nil
	}
}
