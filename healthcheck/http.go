package healthcheck

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"sluice/certificates"
	"sluice/discovery"
	"sluice/healthcheck/statuses"
)

// maxHead bounds the response head in bytes, and each header list of gRPC.
const maxHead = 16 << 10

// HTTPOptions are the settings of an [HTTP] probe. Method, Path and Status are set.
type HTTPOptions struct {
	Method  string
	Path    string                // with query
	Host    string                // default: the checked address
	Headers [][2]string           // name and value
	Status  statuses.Set          // accepted
	Body    Expectation           // ignored for HEAD
	TLS     certificates.Security // of connections; nil: plain HTTP
	HTTP2   bool                  // with TLS by ALPN, without TLS by prior knowledge; else HTTP/1.1
	// Reuse reuses the connection. A new one also checks that the peer accepts
	// connections.
	Reuse bool
}

// HTTP is a [Probe] that sends a request by HTTP/1.1 or HTTP/2. It follows no redirects.
type HTTP struct {
	o      HTTPOptions
	dialer dialer
	*idleConnections[*http.ClientConn]
}

func NewHTTP(o HTTPOptions) *HTTP {
	h := &HTTP{o: o, dialer: dialer{tls: o.TLS}, idleConnections: newIdleConnections[*http.ClientConn](o.Reuse)}
	if o.HTTP2 {
		h.dialer.protocol = "h2"
	}
	return h
}

func (h *HTTP) scheme() string {
	if h.o.TLS != nil {
		return "https"
	}
	return "http"
}

func (h *HTTP) String() string {
	path, _, ok := strings.Cut(h.o.Path, "?")
	if ok {
		path += "?…" // may contain a credential
	}
	return h.scheme() + " " + h.o.Method + " " + path
}

// errStale: a reused connection was closed before an answer, as peers may do with idle
// ones.
var errStale = errors.New("stale connection")

func (h *HTTP) Check(ctx context.Context, t Target) error {
	if connection, ok := h.take(&t); ok {
		if err := h.exchange(ctx, t, connection, true); err != errStale {
			return err
		}
	}
	connection, err := h.connect(ctx, t)
	if err != nil {
		return err
	}
	return h.exchange(ctx, t, connection, false)
}

// connect opens a connection. It dials here, as a panic in a goroutine of net/http could not
// be contained.
func (h *HTTP) connect(ctx context.Context, t Target) (*http.ClientConn, error) {
	opened, err := h.dialer.dial(ctx, t)
	if err != nil {
		return nil, err
	}
	take := func(context.Context, string, string) (net.Conn, error) { return opened, nil }
	transport := &http.Transport{
		DialContext: take, DialTLSContext: take,
		Protocols: new(http.Protocols), DisableCompression: true, MaxResponseHeaderBytes: maxHead,
		ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10,
	}
	transport.Protocols.SetHTTP1(!h.o.HTTP2)
	scheme := h.scheme()
	if secured, ok := opened.(*tls.Conn); ok && h.o.HTTP2 && secured.ConnectionState().NegotiatedProtocol == "" {
		scheme = "http" // by prior knowledge: with https, net/http would use HTTP/1.1
	}
	transport.Protocols.SetHTTP2(h.o.HTTP2 && scheme == "https")
	transport.Protocols.SetUnencryptedHTTP2(h.o.HTTP2 && scheme == "http")
	connection, err := transport.NewClientConn(ctx, scheme, "localhost:80") // dialed above
	if err != nil {
		opened.Close()
		return nil, failure("connect", err)
	}
	return connection, nil
}

// exchange sends a request, checks the answer, and closes the connection or stores it
// for reuse.
func (h *HTTP) exchange(ctx context.Context, t Target, connection *http.ClientConn, used bool) error {
	request, err := h.request(ctx, discovery.Authority(t.Address))
	if err != nil {
		connection.Close()
		return err
	}
	response, err := connection.RoundTrip(request)
	if err != nil {
		connection.Close()
		if used && ctx.Err() == nil {
			return errStale
		}
		return answerFailure(err)
	}
	if err = t.identify(response.Header); err == nil || h.o.Reuse {
		err = cmp.Or(err, h.answer(response))
	}
	response.Body.Close()
	if h.o.Reuse && !response.Close && ctx.Err() == nil && connection.Err() == nil {
		h.put(&t, connection)
	} else {
		connection.Close()
	}
	return err
}

func (h *HTTP) request(ctx context.Context, address string) (*http.Request, error) {
	target, err := url.ParseRequestURI(h.o.Path)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	target.Scheme, target.Host = h.scheme(), address
	request := (&http.Request{
		Method: h.o.Method, URL: target, Host: h.o.Host, Close: !h.o.Reuse,
		Header: http.Header{"User-Agent": {"sluice-healthcheck"}},
	}).WithContext(ctx)
	for _, field := range h.o.Headers {
		if strings.EqualFold(field[0], "Host") {
			request.Host = field[1]
		} else {
			request.Header.Set(field[0], field[1])
		}
	}
	return request, nil
}

// answerFailure describes an error of net/http, which has no values for two of them.
func answerFailure(err error) error {
	switch text := err.Error(); {
	case strings.Contains(text, "response headers exceeded"):
		return fmt.Errorf("answer: head above %d KiB", maxHead>>10)
	case strings.Contains(text, "server closed idle connection"): // before it got the request
		err = io.EOF
	}
	return failure("answer", err)
}

func (h *HTTP) answer(response *http.Response) error {
	wrong := !h.o.Status.Has(response.StatusCode)
	ignored := wrong || h.o.Method == http.MethodHead || h.o.Body.empty()
	var body []byte
	var err error
	if !ignored || h.o.Reuse { // a connection can be reused after the end of a body
		within := max(h.o.Body.Within, 0)
		body, err = io.ReadAll(io.LimitReader(response.Body, int64(within)+1))
		body = body[:min(len(body), within)]
	}
	switch {
	case wrong:
		return fmt.Errorf("status %d, want %s", response.StatusCode, h.o.Status)
	case ignored:
		return nil
	case err != nil:
		return failure("body", err)
	}
	return (&search{Expectation: h.o.Body}).check(body)
}
