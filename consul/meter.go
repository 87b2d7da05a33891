package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
)

// Stats are the cost of a client for Consul and its state, over all agents.
type Stats struct {
	Queries       uint64 // since the start, with probes
	Probes        uint64 // of the queries
	Errors        uint64 // queries without an answer, or with a status from 400; not canceled ones
	BytesReceived uint64 // over all connections, with headers and TLS
	BytesSent     uint64
	Refused       uint64 // answers 429
	Opened        uint64 // connections since the start
	Connections   int    // open now
	Peak          int    // maximum of Connections
	Limit         int    // queries that may be in flight now; a 429 lowers it
	Watches       int    // loops of blocking queries that run; see LoopOptions.ExcludeFromCapacity
	Shared        bool   // see Client.InMode
}

// meter counts the traffic of a client's transports, and reports answers 429 and the
// use of HTTP/2 to the gate. It is safe for concurrent use.
type meter struct {
	gate        *gate
	connections int // that the client may open

	queries, probes, errors, received, sent, refused, opened atomic.Uint64

	mu         sync.Mutex // guards the fields below
	open, peak int
}

func (m *meter) stats() Stats {
	limit, loops := m.gate.size()
	oversubscribed, _ := m.gate.oversubscription()
	m.mu.Lock()
	defer m.mu.Unlock()
	return Stats{
		Queries:       m.queries.Load(),
		Probes:        m.probes.Load(),
		Errors:        m.errors.Load(),
		BytesReceived: m.received.Load(),
		BytesSent:     m.sent.Load(),
		Refused:       m.refused.Load(),
		Opened:        m.opened.Load(),
		Connections:   m.open,
		Peak:          m.peak,
		Limit:         limit,
		Watches:       loops,
		Shared:        oversubscribed,
	}
}

// dial counts the connections of next.
func (m *meter) dial(next dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := next(ctx, network, address)
		if err != nil {
			return nil, err
		}
		m.opened.Add(1)
		m.mu.Lock()
		m.open++
		m.peak = max(m.peak, m.open)
		m.mu.Unlock()
		return &meteredConn{Conn: conn, meter: m}, nil
	}
}

// meteredConn counts its bytes and itself.
type meteredConn struct {
	net.Conn
	meter *meter
	once  sync.Once
}

func (c *meteredConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.meter.received.Add(uint64(n))
	return n, err
}

func (c *meteredConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.meter.sent.Add(uint64(n))
	return n, err
}

func (c *meteredConn) Close() error {
	c.once.Do(c.meter.closed)
	return c.Conn.Close()
}

// CloseWrite closes the connection for the client.
func (c *meteredConn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	c.once.Do(c.meter.closed)
	return half.CloseWrite()
}

// closed counts a connection that the client has closed.
func (m *meter) closed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open--
}

// meteredTransport counts requests, and calls the bodyReader in the context of a
// request.
type meteredTransport struct {
	connections *connections
	meter       *meter
	multiplexed *atomic.Bool // of the agent
}

type bodyKey struct{}

// bodyReader reads the body of an answer.
type bodyReader func(*http.Response) error

// withBody returns a context for a request of q. If the status is 200, or 404 and the request
// may find nothing, read is called with the body, and hashicorp/consul/api decodes "null":
// for a large answer its own decoder takes several times as long.
func withBody(ctx context.Context, q Query, read bodyReader) context.Context {
	return context.WithValue(ctx, bodyKey{}, body{read: read, mayBeAbsent: q.MayBeAbsent, blocks: q.WaitIndex > 0, escaped: q.Path != ""})
}

// body is what is done with the body of an answer, and with its request.
type body struct {
	read        bodyReader
	mayBeAbsent bool
	blocks      bool // the request has an index: it is sent once
	escaped     bool // its path is Query.Path, which hashicorp/consul/api has escaped again
}

func (t meteredTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.meter.queries.Add(1)
	b, _ := r.Context().Value(bodyKey{}).(body)
	if b.blocks {
		r = unrepeated(r)
	}
	if path, err := url.PathUnescape(r.URL.Path); b.escaped && err == nil {
		once := *r.URL
		once.Path, once.RawPath = path, r.URL.Path
		r = r.WithContext(r.Context()) // a copy
		r.URL = &once
	}
	var response *http.Response
	err := t.connections.send(r, func(answer *http.Response) error {
		response = answer
		t.count(answer)
		answer.Body = limited(answer)
		return readBody(r.Context(), answer)
	})
	if response == nil && !errors.Is(r.Context().Err(), context.Canceled) {
		t.meter.errors.Add(1)
	}
	if err != nil {
		return nil, err
	}
	return response, nil
}

// absent reports whether response says that there is nothing, to a request for which this
// is no error.
func absent(response *http.Response) bool {
	if response.StatusCode != http.StatusNotFound || response.Request == nil {
		return false
	}
	b, _ := response.Request.Context().Value(bodyKey{}).(body)
	return b.mayBeAbsent
}

// count records the status and the protocol of a response.
func (t meteredTransport) count(response *http.Response) {
	if response.StatusCode >= http.StatusBadRequest && !absent(response) {
		t.meter.errors.Add(1)
	}
	if response.ProtoMajor >= 2 {
		t.multiplexed.Store(true)
		t.meter.gate.adapt()
	}
	if response.StatusCode == http.StatusTooManyRequests {
		t.meter.refused.Add(1)
		t.meter.gate.refused()
	}
}

const (
	// maxAnswerBytes limits the body of an answer: thirty thousand instances take less.
	maxAnswerBytes = 64 << 20
	maxErrorBytes  = 64 << 10 // of an answer that is an error
)

var errTooLong = fmt.Errorf("the answer is longer than %d MiB", maxAnswerBytes>>20)

// limited returns the body of an answer, which fails after the maximum.
func limited(answer *http.Response) io.ReadCloser {
	most := maxAnswerBytes
	if answer.StatusCode != http.StatusOK {
		most = maxErrorBytes
	}
	return &limitedBody{answer.Body, most + 1}
}

// limitedBody is a body that fails when left bytes have been read.
type limitedBody struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (b *limitedBody) Read(p []byte) (n int, err error) {
	n, err = b.ReadCloser.Read(p[:min(len(p), b.left)])
	if b.left -= n; b.left == 0 {
		return n, errTooLong
	}
	return n, err
}

// readBody calls the bodyReader of ctx, if there is one, and replaces the body by
// "null".
func readBody(ctx context.Context, response *http.Response) error {
	b, ok := ctx.Value(bodyKey{}).(body)
	if !ok || response.StatusCode != http.StatusOK && !(b.mayBeAbsent && response.StatusCode == http.StatusNotFound) {
		return nil
	}
	err := b.read(response)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
	}
	response.Body.Close()
	response.Body = io.NopCloser(strings.NewReader("null"))
	return err
}
