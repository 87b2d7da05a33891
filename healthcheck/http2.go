package healthcheck

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"sluice/discovery"
)

// HTTP2 is a [Probe] that sends a request by HTTP/2: with TLS by ALPN, without TLS by prior
// knowledge. It follows no redirects.
type HTTP2 struct {
	o    HTTPOptions
	http *HTTP // for String
	idle *idleConnections[*http.ClientConn]
}

func NewHTTP2(o HTTPOptions) *HTTP2 {
	return &HTTP2{o: o, http: NewHTTP(o), idle: newIdleConnections[*http.ClientConn](o.Reuse)}
}

func (h *HTTP2) String() string        { return h.http.String() }
func (h *HTTP2) Forget(address string) { h.idle.forget(address) }
func (h *HTTP2) Close()                { h.idle.close() }

func (h *HTTP2) Check(ctx context.Context, t Target) error {
	if connection, ok := h.idle.take(t.Address); ok {
		if err := h.exchange(ctx, t.Address, connection, true); err != errStale {
			return err
		}
	}
	connection, err := h.connect(ctx, t)
	if err != nil {
		return err
	}
	return h.exchange(ctx, t.Address, connection, false)
}

// errNoHTTP2 is the error of a peer that agrees to no protocol, or to another one.
var errNoHTTP2 = errors.New("TLS handshake: the peer does not agree to HTTP/2")

// connect opens a connection.
func (h *HTTP2) connect(ctx context.Context, t Target) (*http.ClientConn, error) {
	var dialErr error
	transport := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true, MaxResponseHeaderBytes: maxHead}
	scheme := "http"
	if h.o.TLS == nil {
		transport.Protocols.SetUnencryptedHTTP2(true)
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			connection, err := dialer{}.dial(ctx, t)
			dialErr = err
			return connection, err
		}
	} else {
		scheme = "https"
		transport.Protocols.SetHTTP2(true)
		transport.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			connection, err := dialer{tls: h.tls}.dial(ctx, t)
			if err == nil && connection.(*tls.Conn).ConnectionState().NegotiatedProtocol != "h2" {
				connection.Close()
				err = errNoHTTP2
			}
			dialErr = err
			return connection, err
		}
	}
	connection, err := transport.NewClientConn(ctx, scheme, net.JoinHostPort("localhost", "80")) // dialed above
	switch {
	case dialErr != nil:
		return nil, dialErr
	case err != nil:
		return nil, failure("connect", err)
	}
	return connection, nil
}

// tls returns the configuration of a new connection.
func (h *HTTP2) tls() *tls.Config {
	config := h.o.TLS()
	config.NextProtos = []string{"h2"}
	return config
}

// exchange sends a request, checks the answer, and closes the connection or stores it
// for reuse.
func (h *HTTP2) exchange(ctx context.Context, address string, connection *http.ClientConn, used bool) error {
	request, err := h.request(ctx, discovery.Authority(address))
	if err != nil {
		connection.Close()
		return err
	}
	response, err := connection.RoundTrip(request)
	if err != nil {
		connection.Close()
		return stale(used && ctx.Err() == nil, failure("answer", err))
	}
	err = h.answer(response)
	response.Body.Close()
	if h.o.Reuse && ctx.Err() == nil && connection.Err() == nil {
		h.idle.put(address, connection)
	} else {
		connection.Close()
	}
	return err
}

func (h *HTTP2) request(ctx context.Context, address string) (*http.Request, error) {
	target, err := url.ParseRequestURI(h.o.Path)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	target.Scheme, target.Host = "http", address
	if h.o.TLS != nil {
		target.Scheme = "https"
	}
	request := (&http.Request{Method: h.o.Method, URL: target, Host: h.o.Host, Header: http.Header{"User-Agent": {"sluice-healthcheck"}}}).WithContext(ctx)
	for _, field := range h.o.Headers {
		if strings.EqualFold(field[0], "Host") {
			request.Host = field[1]
		} else {
			request.Header.Set(field[0], field[1])
		}
	}
	return request, nil
}

func (h *HTTP2) answer(response *http.Response) error {
	switch {
	case !h.o.Status.Has(response.StatusCode):
		return fmt.Errorf("status %d, want %s", response.StatusCode, h.o.Status)
	case h.o.Method == http.MethodHead, h.o.Body.empty():
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(max(h.o.Body.Within, 0))))
	if err != nil {
		return failure("body", err)
	}
	return h.o.Body.check(body)
}
