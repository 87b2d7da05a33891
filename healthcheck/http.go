package healthcheck

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strings"
	"sync"

	"github.com/valyala/fasthttp"
)

// maxHead bounds the head of an answer to a check, in bytes.
const maxHead = 16 << 10

// HTTPOptions are the settings of an [HTTP] probe.
type HTTPOptions struct {
	Method  string      // default GET
	Path    string      // with the query, if there is one; default /
	Host    string      // of the request; default: the address that is checked
	Headers [][2]string // name and value
	Status  Statuses    // that an answer may have; default 200 to 299
	Body    Expectation // ignored for HEAD
	TLS     *TLS        // nil: plain HTTP
	// Reuse keeps the connection for the next check. A check on a new one
	// notices more: that the peer still accepts connections.
	Reuse bool
}

// HTTP asks with an HTTP/1.1 request. It follows no redirect.
type HTTP struct {
	o      HTTPOptions
	dialer dialer
	kept   *kept[*httpConnection]
}

// httpConnection is a connection to a peer with what has been read ahead.
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

// Close closes the connection. It must be called once.
func (c *httpConnection) Close() error {
	c.reader.Reset(nil)
	readers.Put(c.reader)
	return c.Conn.Close()
}

// NewHTTP returns a probe with the options o.
func NewHTTP(o HTTPOptions) *HTTP {
	if o.Method == "" {
		o.Method = fasthttp.MethodGet
	}
	if o.Path == "" {
		o.Path = "/"
	}
	if o.Status == (Statuses{}) {
		o.Status, _ = ParseStatuses("2xx")
	}
	return &HTTP{o: o, dialer: dialer{tls: o.TLS}, kept: newKept[*httpConnection](o.Reuse)}
}

func (h *HTTP) String() string {
	scheme := "http"
	if h.o.TLS != nil {
		scheme = "https"
	}
	path, _, ok := strings.Cut(h.o.Path, "?")
	if ok {
		path += "?…" // there may be a credential in it
	}
	return scheme + " " + h.o.Method + " " + path
}

// Forget closes the connection that was kept for address.
func (h *HTTP) Forget(address string) { h.kept.forget(address) }

// Close closes the connections that were kept.
func (h *HTTP) Close() { h.kept.close() }

// errStale says that a kept connection broke before it gave an answer, which a
// peer that closes idle connections may do at any time.
var errStale = errors.New("stale connection")

// Check sends a request and looks at the answer.
func (h *HTTP) Check(ctx context.Context, t Target) error {
	if connection, ok := h.kept.take(t.Address); ok {
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

// exchange sends a request over a connection, judges the answer and closes or
// keeps the connection.
func (h *HTTP) exchange(ctx context.Context, address string, connection *httpConnection, used bool) error {
	release := bound(ctx, connection)
	if _, err := connection.Write(h.request(address)); err != nil {
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
		h.kept.put(address, connection)
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

// request returns the request to address.
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

// answer reads an answer and returns whether another one may follow on the
// connection, and what is wrong with this one.
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
		// An interim answer, such as 103, comes before the one that counts (RFC
		// 9110, section 15.2).
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

// body reads as much of the body as is looked at, and reports whether that was
// all of it.
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
	return body, length > 0, nil // the end of a chunked body may have trailers
}
