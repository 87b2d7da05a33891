package proxy

import (
	"context"
	"net"
	"sync"
	"time"

	"sluice/balancer"
)

// TransportOptions say how connections to the peers of a pool are kept. How
// they are made is up to the route's service.
type TransportOptions struct {
	// IdleTimeout is how long an unused connection is kept. It should be below
	// the time after which the peers close idle connections themselves; where a
	// peer tells that time (Keep-Alive: timeout=5), it is honoured. Default 4 s,
	// below what the servers of Node.js and uvicorn use.
	IdleTimeout time.Duration
	// MaxIdle is how many unused connections to one peer are kept. Default 512.
	MaxIdle int
}

// Defaults of TransportOptions.
const (
	DefaultUpstreamIdleTimeout = 4 * time.Second
	DefaultMaxIdle             = 512
)

func (o TransportOptions) withDefaults() TransportOptions {
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = DefaultUpstreamIdleTimeout
	}
	if o.MaxIdle <= 0 {
		o.MaxIdle = DefaultMaxIdle
	}
	return o
}

// A Transport owns the connections to one peer, and keeps a stack of the idle
// ones, of which the last used is the first to be used again. It implements
// [balancer.Transport] and is safe for concurrent use.
type Transport struct {
	peer    *balancer.Peer
	address string
	options TransportOptions
	sweeper *sweeper

	mu sync.Mutex
	// mu guards the fields below.
	idle      []*upstreamConn            // oldest first
	open      map[*upstreamConn]struct{} // idle or at work
	drains    int                        // how often Drain was called
	suspected time.Time                  // when Suspect was called last
	lostFirst time.Time                  // see excuses
	lostLast  time.Time
	closed    bool
}

// NewTransport returns the factory for the transports of a pool's peers, for
// [balancer.Options].
func (s *Server) NewTransport(o TransportOptions) func(*balancer.Peer) balancer.Transport {
	o = o.withDefaults()
	return func(p *balancer.Peer) balancer.Transport {
		t := &Transport{
			peer: p, address: p.Address(), options: o, sweeper: s.sweeper,
			open: make(map[*upstreamConn]struct{}),
		}
		s.sweeper.addTransport(t)
		return t
	}
}

// acquire returns the idle connection that was used last, or nil, for an
// exchange whose peer was picked then.
func (t *Transport) acquire(picked time.Time) *upstreamConn {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := len(t.idle) - 1
	if last < 0 {
		return nil
	}
	u := t.idle[last]
	t.idle[last] = nil
	t.idle = t.idle[:last]
	t.lend(u, picked)
	return u
}

// lend prepares u for an exchange. mu must be held.
func (t *Transport) lend(u *upstreamConn, picked time.Time) {
	u.picked = picked
	if t.suspected.After(picked) {
		u.wake()
	}
}

// dial opens a new connection within timeout.
func (t *Transport) dial(ctx context.Context, picked time.Time, timeout time.Duration, shard uint32) (*upstreamConn, error) {
	dialer := net.Dialer{Timeout: timeout, ControlContext: t.peer.Control}
	conn, err := dialer.DialContext(ctx, "tcp", t.address)
	t.peer.NoteRefusal(err)
	if err != nil {
		return nil, err
	}
	u, err := newUpstreamConn(t, conn.(*net.TCPConn))
	if err != nil {
		conn.Close()
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	u.drains = t.drains
	t.open[u] = struct{}{}
	t.lend(u, picked)
	t.sweeper.add(&u.sweepEntry, conn, shard)
	return u, nil
}

// release takes back a connection whose last response ended exactly where it
// said it would.
func (t *Transport) release(u *upstreamConn) {
	u.disarm()
	u.client.Store(nil)
	u.request, u.body, u.response, u.rest = nil, nil, nil, nil // they belong to the exchange
	u.used = true
	u.idleUntil = t.sweeper.now() + int64(u.idleTimeout)
	t.mu.Lock()
	keep := u.drains == t.drains && !t.closed && len(t.idle) < t.options.MaxIdle
	if keep {
		t.idle = append(t.idle, u)
	}
	t.mu.Unlock()
	if !keep {
		t.discard(u)
	}
}

// discard closes connections that are not idle, or no longer.
func (t *Transport) discard(conns ...*upstreamConn) {
	t.mu.Lock()
	for _, u := range conns {
		delete(t.open, u)
	}
	t.mu.Unlock()
	for _, u := range conns {
		u.close()
	}
}

// closeIdle closes the connections that have been idle for too long. now is
// coarse time.
func (t *Transport) closeIdle(now int64) {
	t.mu.Lock()
	kept := t.idle[:0]
	var expired []*upstreamConn
	for _, u := range t.idle {
		if u.idleUntil > now {
			kept = append(kept, u)
		} else {
			expired = append(expired, u)
		}
	}
	clear(t.idle[len(kept):])
	t.idle = kept
	t.mu.Unlock()
	if len(expired) > 0 {
		t.discard(expired...)
	}
}

// Drain closes the idle connections, and those at work as soon as their
// exchange ends. Connections opened afterwards, should the peer come back, are
// kept as ever.
func (t *Transport) Drain() {
	t.mu.Lock()
	idle := t.idle
	t.idle = nil
	t.drains++
	t.mu.Unlock()
	t.discard(idle...)
}

// Suspect wakes the exchanges that wait for the peer, so that those that can be
// tried elsewhere are.
func (t *Transport) Suspect() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.suspected = time.Now()
	for u := range t.open {
		u.wake()
	}
}

// suspects reports whether the peer has begun to fail since it was picked for
// the exchange that u works on.
func (t *Transport) suspects(u *upstreamConn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.suspected.After(u.picked)
}

// A peer may close a connection that is idle at the very moment at which a
// request is sent on it: when it restarts, or because the connection was idle for
// long. What tells that from a peer that breaks off a request is that it is
// found out soon, and seldom.
const (
	staleWithin = time.Second      // of the request
	staleMoment = time.Second      // in which all such connections are excused…
	staleRest   = 10 * time.Second // …if none was lost for that long before
)

// excuses reports whether a connection that was used again and lost under a
// request at the time now had been closed by then, as far as can be told.
func (t *Transport) excuses(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.lostLast) >= staleRest {
		t.lostFirst = now
	}
	t.lostLast = now
	return now.Sub(t.lostFirst) < staleMoment
}

// Close cuts every connection. An exchange on one of them fails as if the peer
// had cut it. Closing again is harmless.
func (t *Transport) Close() {
	t.sweeper.removeTransport(t)
	t.Drain()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for u := range t.open { // Drain has closed the idle ones
		u.conn.Close() // its exchange discards it
	}
}

// Connections returns how many connections are idle and how many at work.
func (t *Transport) Connections() (idle, busy int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.idle), len(t.open) - len(t.idle)
}
