package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// Stats returns the cost of the client for Consul.
func (c *Client) Stats() Stats {
	limit, loops := c.Capacity()
	oversubscribed, _ := c.gate.oversubscription()
	m := c.meter
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

// countOpen counts n further connections, which may be negative.
func (m *meter) countOpen(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open += n
	m.peak = max(m.peak, m.open)
}

// meteredTransport counts requests, and passes on what a query reads.
type meteredTransport struct {
	connections *connections
	multiplexed *atomic.Bool // of the agent
}

// asking is the query of a request, in its context. If the status is 200, or 404 and the query may
// find nothing, read is called with the answer, and hashicorp/consul/api decodes "null": for a
// large answer its own decoder takes several times as long.
type asking struct {
	query Query
	read  func(*http.Response) error
}

// askingKey is the key of an asking in a context.
type askingKey struct{}

func (t meteredTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	meter := t.connections.meter
	meter.queries.Add(1)
	a, _ := r.Context().Value(askingKey{}).(asking)
	if a.query.WaitIndex > 0 {
		r = unrepeated(r)
	}
	// hashicorp/consul/api has escaped Query.Path again.
	if path, err := url.PathUnescape(r.URL.Path); a.query.Path != "" && err == nil {
		once := *r.URL
		once.Path, once.RawPath = path, r.URL.Path
		r = r.WithContext(r.Context()) // a copy
		r.URL = &once
	}
	var response *http.Response
	err := t.connections.send(r, func(answer *http.Response) error {
		response = answer
		absent := a.query.MayBeAbsent && answer.StatusCode == http.StatusNotFound
		t.count(answer, absent)
		answer.Body = limited(answer)
		if a.read == nil || answer.StatusCode != http.StatusOK && !absent {
			return nil
		}
		return replaceBody(answer, a.read)
	})
	if response == nil && !errors.Is(r.Context().Err(), context.Canceled) {
		meter.errors.Add(1)
	}
	if err != nil {
		return nil, err
	}
	return response, nil
}

// count records the status and the protocol of a response. absent: it says that there is nothing,
// which is no error.
func (t meteredTransport) count(response *http.Response, absent bool) {
	meter := t.connections.meter
	if response.StatusCode >= http.StatusBadRequest && !absent {
		meter.errors.Add(1)
	}
	if response.ProtoMajor >= 2 {
		t.multiplexed.Store(true)
		meter.gate.adapt()
	}
	if response.StatusCode == http.StatusTooManyRequests {
		meter.refused.Add(1)
		meter.gate.refused()
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

// replaceBody calls read with a response, and replaces its body by "null".
func replaceBody(response *http.Response, read func(*http.Response) error) error {
	err := read(response)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
	}
	response.Body.Close()
	response.Body = io.NopCloser(strings.NewReader("null"))
	return err
}
