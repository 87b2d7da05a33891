package consul

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// Stats is what a client costs Consul, and how it fares, over all agents.
type Stats struct {
	Queries       uint64 // sent since the start, with probes
	Probes        uint64 // of them, those that only ask whether an agent is good
	Errors        uint64 // of them, those that had no answer, or one from 400 on; not those that were broken off
	BytesReceived uint64 // over all connections, with headers and TLS
	BytesSent     uint64
	Refused       uint64 // answers 429
	Opened        uint64 // connections since the start
	Connections   int    // open now
	Peak          int    // most that were open at a time
	Limit         int    // queries that may be in flight now: fewer after a 429
	Watches       int    // services that are watched with blocking queries
	Riding        int    // of them, those that share an overview at the moment
	Shared        bool   // there are more of them than that: see the package comment
}

// meter counts what passes through a client's transports, and tells the gate
// what it learns there. It is safe for concurrent use.
type meter struct {
	gate        *gate
	connections int // that the client may open

	queries, probes, errors, received, sent, refused, opened atomic.Uint64

	left *sync.Cond // of mu: leaving has become less

	mu         sync.Mutex // guards the fields below
	open, peak int
	lettingGo  bool // see Client.Release
	leaving    int  // connections that the agents have not closed yet
	abandoned  int  // those that they did not close in time, since it began
}

// newMeter makes a meter for so many connections, of which the gate lets queries
// use some.
func newMeter(g *gate, connections int) *meter {
	m := &meter{gate: g, connections: connections}
	m.left = sync.NewCond(&m.mu)
	return m
}

func (m *meter) stats() Stats {
	limit, watches := m.gate.size()
	crowded, _ := m.gate.crowd()
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
		Watches:       watches,
		Shared:        crowded,
	}
}

// dial counts the connections that next opens.
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

// meteredConn counts its bytes, and itself until it is closed.
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

func (c *meteredConn) Close() (err error) {
	c.once.Do(func() {
		if !c.leave() {
			err = c.close()
		}
	})
	return err
}

func (c *meteredConn) close() error {
	c.meter.mu.Lock()
	c.meter.open--
	c.meter.mu.Unlock()
	return c.Conn.Close()
}

// meteredTransport counts requests, and hands the body of an answer to the
// caller who asks for it with withBody.
type meteredTransport struct {
	connections *connections
	meter       *meter
}

type bodyKey struct{}

// bodyReader reads the body of an answer that has a header.
type bodyReader func(http.Header, io.Reader) error

// withBody returns a context whose request has its answer's body, if its status
// is 200, read by read alone: hashicorp/consul/api then decodes "null". For large
// answers of which little is of interest.
func withBody(ctx context.Context, read bodyReader) context.Context {
	return context.WithValue(ctx, bodyKey{}, read)
}

func (t meteredTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.meter.queries.Add(1)
	var response *http.Response
	err := t.connections.send(r, func(answer *http.Response) error {
		response = answer
		t.count(answer)
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

// count takes note of what an answer's header says.
func (t meteredTransport) count(response *http.Response) {
	if response.StatusCode >= http.StatusBadRequest {
		t.meter.errors.Add(1)
	}
	if response.ProtoMajor >= 2 {
		t.meter.gate.multiplexed(t.meter.connections)
	}
	if response.StatusCode == http.StatusTooManyRequests {
		t.meter.refused.Add(1)
		t.meter.gate.refused()
	}
}

// readBody has the reader of ctx read the body, and puts "null" in its place.
func readBody(ctx context.Context, response *http.Response) error {
	read, ok := ctx.Value(bodyKey{}).(bodyReader)
	if !ok || response.StatusCode != http.StatusOK {
		return nil
	}
	err := read(response.Header, response.Body)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
	}
	response.Body.Close()
	response.Body = io.NopCloser(strings.NewReader("null"))
	return err
}
