package healthcheck

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strings"
	"sync"

	"github.com/valyala/fasthttp"

	"sluice/discovery"
)

// maxHead bounds the response head in bytes.
const maxHead = 16 << 10

// HTTPOptions are the settings of an [HTTP] probe. Method, Path and Status are set.
type HTTPOptions struct {
	Method  string
	Path    string             // with query
	Host    string             // default: the checked address
	Headers [][2]string        // name and value
	Status  Statuses           // accepted
	Body    Expectation        // ignored for HEAD
	TLS     func() *tls.Config // returns the configuration of a new connection, which is changed; nil: plain HTTP
	// Reuse reuses the connection. A new one also checks that the peer accepts
	// connections.
	Reuse bool
}

// HTTP is a [Probe] that sends an HTTP/1.1 request. It follows no redirects.
type HTTP struct {
	o      HTTPOptions
	dialer dialer
	idle   *idleConnections[*httpConnection]
}

// httpConnection is a connection with its read buffer.
type httpConnection struct {
	net.Conn
	reader *bufio.Reader
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, maxHead) }}

func newHTTPConnection(c net.Conn) *httpConnection {
	r := readers.Get().(*bufio.Reader)
	r.Reset(c)
	return &httpConnection{c, r}
}

// Close must be called once.
func (c *httpConnection) Close() error {
	c.reader.Reset(nil)
	readers.Put(c.reader)
	return c.Conn.Close()
}

func NewHTTP(o HTTPOptions) *HTTP {
	return &HTTP{o: o, dialer: dialer{tls: o.TLS}, idle: newIdleConnections[*httpConnection](o.Reuse)}
}

func (h *HTTP) String() string {
	scheme := "http"
	if h.o.TLS != nil {
		scheme = "https"
	}
	path, _, ok := strings.Cut(h.o.Path, "?")
	if ok {
		path += "?…" // may contain a credential
	}
	return scheme + " " + h.o.Method + " " + path
}

func (h *HTTP) Forget(address string) { h.idle.forget(address) }
func (h *HTTP) Close()                { h.idle.close() }

// errStale: a reused connection was closed before an answer, as peers may do with idle
// ones.
var errStale = errors.New("stale connection")

func (h *HTTP) Check(ctx context.Context, t Target) error {
	if connection, ok := h.idle.take(t.Address); ok {
		if err := h.exchange(ctx, t.Address, connection, true); err != errStale {
			return err
		}
	}
	connection, err := h.dialer.dial(ctx, t)
	if err != nil {
		return err
	}
	return h.exchange(ctx, t.Address, newHTTPConnection(connection), false)
}

// exchange sends a request, checks the answer, and closes the connection or stores it
// for reuse.
func (h *HTTP) exchange(ctx context.Context, address string, connection *httpConnection, used bool) error {
	release := bound(ctx, connection)
	if _, err := connection.Write(h.request(discovery.Authority(address))); err != nil {
		connection.Close()
		release()
		return stale(used, failure("request", err))
	}
	if _, err := connection.reader.Peek(1); err != nil {
		connection.Close()
		release()
		return stale(used && ctx.Err() == nil, failure("answer", err))
	}
	reusable, err := h.answer(connection.reader)
	release()
	if reusable && ctx.Err() == nil {
		h.idle.put(address, connection)
	} else {
		connection.Close()
	}
	return err
}

func stale(used bool, err error) error {
	if used {
		return errStale
	}
	return err
}

func (h *HTTP) request(address string) []byte {
	var header fasthttp.RequestHeader
	header.DisableNormalizing()
	header.SetMethod(h.o.Method)
	header.SetRequestURI(h.o.Path)
	header.SetHost(address)
	header.SetUserAgent("sluice-healthcheck")
	if h.o.Host != "" {
		header.SetHost(h.o.Host)
	}
	for _, field := range h.o.Headers {
		header.Set(field[0], field[1])
	}
	if !h.o.Reuse {
		header.SetConnectionClose()
	}
	if h.o.Method == fasthttp.MethodPost || h.o.Method == fasthttp.MethodPut {
		header.Set(fasthttp.HeaderContentLength, "0")
	}
	return header.Header()
}

var responseHeaders = sync.Pool{New: func() any { return new(fasthttp.ResponseHeader) }}

// answer reads and checks an answer. reusable reports whether the connection can be
// reused.
func (h *HTTP) answer(r *bufio.Reader) (reusable bool, err error) {
	header := responseHeaders.Get().(*fasthttp.ResponseHeader)
	defer responseHeaders.Put(header)
	for {
		header.Reset()
		if err := header.Read(r); err != nil {
			var tooLarge *fasthttp.ErrSmallBuffer
			if errors.As(err, &tooLarge) {
				return false, fmt.Errorf("answer: head above %d KiB", maxHead>>10)
			}
			return false, failure("answer", err)
		}
		// Skip interim answers, such as 103 (RFC 9110, section 15.2).
		if header.StatusCode() >= lowestStatus || header.StatusCode() == fasthttp.StatusSwitchingProtocols {
			break
		}
	}
	status := header.StatusCode()
	body, complete, err := h.body(r, header)
	reusable = h.o.Reuse && complete && !header.ConnectionClose()
	switch {
	case !h.o.Status.Has(status):
		return reusable, fmt.Errorf("status %d, want %s", status, h.o.Status)
	case h.o.Method == fasthttp.MethodHead:
		return reusable, nil
	case err != nil && !h.o.Body.empty():
		return false, failure("body", err)
	}
	return reusable, h.o.Body.check(body)
}

// body reads up to Body.Within bytes of the body, and reports whether that is all of
// it.
func (h *HTTP) body(r *bufio.Reader, header *fasthttp.ResponseHeader) (body []byte, complete bool, err error) {
	length := header.ContentLength() // -1: chunked, -2: up to the end of the connection
	status := header.StatusCode()
	if h.o.Method == fasthttp.MethodHead || status == fasthttp.StatusNoContent || status == fasthttp.StatusNotModified || length == 0 {
		return nil, true, nil
	}
	if h.o.Body.empty() && !h.o.Reuse {
		return nil, false, nil
	}
	var source io.Reader = r
	switch {
	case length == -1:
		source = httputil.NewChunkedReader(r)
	case length > 0:
		source = io.LimitReader(r, int64(length))
	}
	within := max(h.o.Body.Within, 0)
	body, err = io.ReadAll(io.LimitReader(source, int64(within)+1))
	if len(body) > within {
		return body[:within], false, err
	}
	switch {
	case err != nil:
		return body, false, err
	case length > 0 && len(body) < length:
		return body, false, io.ErrUnexpectedEOF
	}
	return body, length > 0, nil // a chunked body may have trailers
}
