package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"sluice/observe/panics"
	"sluice/proxy/socket"
)

// errNoStreams is the error of a new connection to a peer that accepts no streams.
var errNoStreams = errors.New("HTTP/2: the peer accepts no streams")

// A SharedError is the error of a connection that another request has opened, and which that
// request reports too.
type SharedError struct{ error }

func (e SharedError) Unwrap() error { return e.error }

// An http2Transport owns the HTTP/2 connections to one peer: few, with many streams. It is safe for
// concurrent use.
type http2Transport struct {
	*common                // with the transport for HTTP/1.1
	readers sync.WaitGroup // of connections

	// The mu of common guards the fields below.
	conns   []*http2Conn
	streams int      // of a connection, as of the last one; see connect
	waiting int      // requests that wait for a dial of another one
	dials   int      // in progress
	dialed  *dialEnd // of the first dial in progress to succeed, or the last one to fail
}

// A dialEnd is the end of a wait for dials.
type dialEnd struct {
	ended chan struct{} // closed
	err   error         // valid when ended is closed
}

func newDialEnd() *dialEnd { return &dialEnd{ended: make(chan struct{})} }

func newHTTP2Transport(c *common) *http2Transport {
	return &http2Transport{common: c, streams: streamsOf(http2Streams, c.options), dialed: newDialEnd()}
}

// streamsOf returns how many requests get a stream of a new connection whose peer accepts limit
// streams at a time.
func streamsOf(limit int, o Options) int {
	if most := o.MaxRequests; most > 0 {
		return min(limit, most)
	}
	return limit
}

// Connect: see [Connector]. If all streams are in use, one request opens a connection,
// and as many others wait for it as it will have streams.
func (t *http2Transport) Connect(ctx context.Context, r Requirements, stale Conn) (Conn, time.Duration, error) {
	if stale != nil {
		stale.Finish(false)
	}
	if r.WebSocket {
		return nil, 0, ErrNoWebSocket
	}
	c, err := t.free(r.Body, r.Private)
	var connectTime time.Duration
	if c == nil && err == nil {
		start := time.Now()
		ctx, end := r.WhileThere(ctx, nil)
		c, err = t.open(ctx, r)
		end()
		connectTime = time.Since(start)
	}
	if err != nil {
		return nil, 0, err
	}
	u := newHTTP2Stream(c, r)
	if previous, ok := stale.(*http2Stream); ok {
		u.replaces = previous.replaces + 1
	}
	return u, connectTime, nil
}

// open returns a connection with a stream for the caller, which it or another request has
// opened.
func (t *http2Transport) open(ctx context.Context, r Requirements) (*http2Conn, error) {
	deadline := t.sweeper.Exact() + int64(r.Timeout)
	for {
		if c, err := t.reserve(ctx, deadline, r); c != nil || err != nil {
			return c, err
		}
	}
}

// reserve returns a connection with a stream for the caller; nil: it has waited for a dial,
// and there may be one now.
func (t *http2Transport) reserve(ctx context.Context, deadline int64, r Requirements) (c *http2Conn, err error) {
	agreed := t.tls.agreement(&t.options)
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err = t.reserveLocked(agreed, r.Body, r.Private)
	switch {
	case c != nil, err != nil:
		return c, err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case t.sweeper.Now() >= deadline:
		return nil, context.DeadlineExceeded
	case r.Private, t.dials*(t.streams-1) <= t.waiting: // each dial is for one request that does not wait
		return t.dialLocked(ctx, deadline, agreed, r)
	}
	return t.awaitDialLocked(ctx, deadline, agreed, r.Body)
}

// free returns a connection with a stream for the caller; nil: there is none.
func (t *http2Transport) free(body, private bool) (*http2Conn, error) {
	agreed := t.tls.agreement(&t.options)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reserveLocked(agreed, body, private)
}

// reserveLocked returns a connection with a stream for the caller; nil: there is none.
func (t *http2Transport) reserveLocked(agreed agreement, body, private bool) (*http2Conn, error) {
	if t.closed {
		return nil, net.ErrClosed
	}
	for _, c := range t.conns {
		if c.reserve(agreed, body, private) {
			return c, nil
		}
	}
	return nil, nil
}

// awaitDialLocked waits for the dials of other requests. It fails with the error of one of them,
// which is a [SharedError], only if no other one is in progress then, and returns a connection only
// then. It unlocks mu while it waits. The deadline is coarse time, so that a pause of the process
// is no failure.
func (t *http2Transport) awaitDialLocked(ctx context.Context, deadline int64, agreed agreement, body bool) (*http2Conn, error) {
	timer := time.NewTimer(max(t.until(deadline), socket.SweepInterval))
	defer timer.Stop()
	dialed := t.dialed
	t.waiting++
	t.mu.Unlock()
	failed := false
	select {
	case <-dialed.ended:
		failed = dialed.err != nil
	case <-timer.C:
	case <-ctx.Done():
	}
	t.mu.Lock() // meanwhile another dial may have begun or ended
	if t.waiting--; !failed || t.dials > 0 {
		return nil, nil
	}
	if c, err := t.reserveLocked(agreed, body, false); c != nil || err != nil {
		return c, err
	}
	return t.failedLocked(agreed, body, SharedError{dialed.err})
}

// failedLocked is called when no connection could be opened. The peer may accept no more of them:
// then a request with a body gets a stream of one whose window is used up, and waits for that.
func (t *http2Transport) failedLocked(agreed agreement, body bool, err error) (*http2Conn, error) {
	if body {
		if c, _ := t.reserveLocked(agreed, false, false); c != nil {
			return c, nil
		}
	}
	return nil, err
}

// until returns the time until a coarse time.
func (t *http2Transport) until(deadline int64) time.Duration {
	return time.Duration(deadline - t.sweeper.Exact())
}

// dialLocked opens a connection, with a stream for the caller. It unlocks mu meanwhile.
func (t *http2Transport) dialLocked(ctx context.Context, deadline int64, agreed agreement, r Requirements) (*http2Conn, error) {
	t.dials++
	t.mu.Unlock()
	c, err := t.dial(ctx, deadline, agreed, r.Client.Shard)
	t.mu.Lock()
	if err == nil && !c.reserve(agreed, r.Body, r.Private) {
		c = nil // other requests were faster
	}
	t.dials--
	switch {
	case ctx.Err() != nil:
		t.endDialLocked(nil) // the error is of this request only
	case err == nil, t.dials == 0:
		t.endDialLocked(err)
	}
	if err != nil && ctx.Err() == nil {
		return t.failedLocked(agreed, r.Body && !r.Private, err)
	}
	return c, err
}

// endDialLocked wakes those who wait for a dial: one has ended with err.
func (t *http2Transport) endDialLocked(err error) {
	t.dialed.err = err
	close(t.dialed.ended)
	t.dialed = newDialEnd()
}

// dial opens a connection and waits for its first SETTINGS, so that nothing is sent to a
// peer that does not use HTTP/2, and no more streams than it accepts.
func (t *http2Transport) dial(ctx context.Context, deadline int64, agreed agreement, shard uint32) (_ *http2Conn, err error) {
	defer panics.Contain(panics.Peer, func() { err = panics.Err })
	ctx, end := t.whileOpen(ctx)
	defer func() { err = end(err) }()
	var c *http2Conn
	err = t.openWire(ctx, t.until(deadline), agreed, socket.ALPNHTTP2, func(w socket.Wire) {
		c = newHTTP2Conn(t, w, agreed, deadline, shard)
		t.conns = append(t.conns, c)
		t.readers.Go(c.read)
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-c.settled:
		c.protocol.Mu.Lock()
		limit := c.limitLocked()
		if err = c.protocol.Err; c.protocol.Last > 0 || c.retired {
			err = nil // it has ended, but not by the peer, or not before other requests have used it
		}
		if err == nil && limit == 0 {
			err = errNoStreams
			c.retireLocked() // otherwise each request would leave a connection
		}
		c.protocol.Mu.Unlock()
		switch err {
		case errNoStreams:
			t.tls.report(err)
			return nil, err
		case nil:
			t.mu.Lock()
			t.streams = streamsOf(limit, t.options)
			t.mu.Unlock()
			return c, nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errors.New("no SETTINGS within timeouts.connect")
		}
		err = fmt.Errorf("HTTP/2: %w", err)
	case <-ctx.Done():
		c.abandon(ctx.Err())
		return nil, ctx.Err()
	}
	c.wire.Conn.Close() // ends read
	t.tls.report(err)
	return nil, err
}

// forget removes a connection that has ended.
func (t *http2Transport) forget(c *http2Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns = slices.DeleteFunc(t.conns, func(other *http2Conn) bool { return other == c })
}

func (t *http2Transport) all() []*http2Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.conns)
}

// CloseIdle: see [Connector].
func (t *http2Transport) CloseIdle(now int64) {
	for _, c := range t.all() {
		c.protocol.Mu.Lock()
		if c.lent == 0 && now-c.changed >= int64(t.options.IdleTimeout) {
			c.retireLocked()
		}
		c.protocol.Mu.Unlock()
	}
}

// Connections: see [Connector].
func (t *http2Transport) Connections() (idle, busy int) {
	for _, c := range t.all() {
		c.protocol.Mu.Lock()
		if c.lent == 0 {
			idle++
		} else {
			busy++
		}
		c.protocol.Mu.Unlock()
	}
	return idle, busy
}

// Drain closes the connections when their last stream ends. It does not affect
// connections that are opened later, if the peer returns.
func (t *http2Transport) Drain() {
	for _, c := range t.all() {
		c.protocol.Mu.Lock()
		c.retireLocked()
		c.protocol.Mu.Unlock()
	}
}

// wake wakes the exchanges that wait for the peer.
func (t *http2Transport) wake() {
	for _, c := range t.all() {
		c.protocol.Mu.Lock()
		for _, s := range c.protocol.Streams {
			s.Wake()
		}
		c.protocol.Mu.Unlock()
	}
}

// Close closes all connections, and waits for their goroutines. common is closed.
func (t *http2Transport) Close() {
	t.Cut()
	t.readers.Wait()
}

// Cut closes all connections. common has noted it.
func (t *http2Transport) Cut() {
	for _, c := range t.all() {
		c.wire.Conn.Close()
	}
}
