package upstream

import (
	"context"
	"maps"
	"math"
	"net"
	"slices"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/config/units"
	"sluice/observe/panics"
	"sluice/proxy/socket"
)

// Keepalive bounds the connections to a peer that are kept for more requests.
type Keepalive struct {
	// IdleTimeout is the maximum idle time of a connection. It should be shorter than
	// the timeout of the peers. If a peer announces its own (Keep-Alive: timeout=5), the
	// shorter one applies.
	IdleTimeout time.Duration `key:"idle" default:"4s" min:"100ms" max:"1h"`
	// MaxIdle is for each peer.
	MaxIdle int `key:"max" default:"512" min:"1" max:"100000"`
	// ConnectionLimits bound the use of a connection, so that new ones reach what is now behind
	// the peer's address. A connection at a limit closes after its last request.
	socket.ConnectionLimits
}

// ResponseLimits bound the heads of responses: their bytes and their field lines.
type ResponseLimits struct {
	HeadBytes units.Size `key:"response_head" default:"16KiB" min:"1KiB" max:"60KiB"`
	Fields    int        `key:"response_fields" default:"100" min:"10" max:"1000"`
}

// Options are the settings of the idle connections to the peers of a pool.
type Options struct {
	Keepalive
	ResponseLimits

	// TLS returns the TLS settings of new connections to an instance that is in the mesh or not, as
	// of their last Read; nil, or if it returns nil: no TLS. Connections with other settings are
	// not reused.
	TLS func(inMesh bool) certificates.Security

	// Intentions explain why peers in a mesh end connections. nil: there is no mesh.
	Intentions Intentions
}

// An http1Transport owns the connections to one peer by HTTP/1.1, and for streams. A
// fasthttp.HostClient is the pool of the idle ones, in LIFO order. It is safe for concurrent use.
type http1Transport struct {
	common
	pool fasthttp.HostClient // of slots; it sends no requests

	// The mu of common guards the fields below, slot.u and HTTP1Conn.idleUntil. pool's own
	// mutex may be taken while it is held.
	idle      int                     // number of idle connections in open
	open      map[*HTTP1Conn]struct{} // idle or busy
	drains    int                     // number of calls of Drain
	lostFirst time.Time               // see countsAsStale
	lostLast  time.Time
}

// newHTTP1Transport returns a transport whose idle connections nobody closes yet.
func (all *Connectors) newHTTP1Transport(p *balancer.Peer, o Options) *http1Transport {
	t := &http1Transport{
		common: common{
			peer: p, options: o, sweeper: all.sweeper,
			tls: peerTLS{peer: p, log: all.log}, refused: refusedAnswers{peer: p, log: all.log},
		},
		open: make(map[*HTTP1Conn]struct{}),
	}
	t.over, t.end = context.WithCancel(context.Background())
	t.pool = fasthttp.HostClient{
		Addr: p.Address(), MaxConns: math.MaxInt, ConnPoolStrategy: fasthttp.LIFO,
		Dial: func(string) (net.Conn, error) { return &slot{transport: t}, nil },
	}
	return t
}

// A slot is a connection for the HostClient of an http1Transport, which opens and
// closes the real connection u, because HostClient has no context, one idle timeout
// for all connections, and cannot replace a stale one.
type slot struct {
	net.Conn  // nil: HostClient only calls Close
	transport *http1Transport
	u         *HTTP1Conn // nil: none is open

	// Calls of HostClient, whose connection type is internal to fasthttp.
	release func() // makes the slot idle
	remove  func() // removes the slot from the pool
}

// Connect: see [Connector].
func (t *http1Transport) Connect(ctx context.Context, r Requirements, stale Conn) (Conn, time.Duration, error) {
	var s *slot
	if stale != nil {
		s = t.detach(stale.(*HTTP1Conn))
	} else if own := t.takeOwn(r.Client); own != nil {
		s = t.lendOwn(own, r.Picked)
	} else {
		s = t.acquire(r.Picked)
	}
	u, connectTime := s.u, time.Duration(0)
	agreed := t.tls.agreement(&t.options)
	if u != nil && u.agreed != agreed {
		s, u = t.detach(u), nil
	}
	if u == nil {
		start := time.Now()
		var err error
		ctx, end := r.WhileThere(ctx, nil)
		u, err = t.dial(ctx, s, r.Picked, r.Timeout, r.Client.Shard, agreed, socket.ALPNHTTP1)
		if end(); err != nil {
			return nil, 0, err
		}
		connectTime = time.Since(start)
	}
	u.pause, u.private = r.Pause, u.private || r.Private
	u.owner.Store(r.Client)
	if !r.KeepForGone {
		u.client.Store(r.Client) // to probe it
	}
	return u, connectTime, nil
}

// acquire returns the slot of the idle connection that was used last, or a slot
// without a connection. picked is when the peer was picked for the exchange.
func (t *http1Transport) acquire(picked time.Time) *slot {
	for {
		s := t.next()
		t.mu.Lock()
		u, others := s.u, t.idle > 0
		if u != nil {
			t.idle--
			u.idleUntil = 0
			t.lendLocked(u, picked)
		}
		t.mu.Unlock()
		if u != nil || !others {
			return s
		}
		s.remove() // the idle timeout of its connection has passed
	}
}

// next returns the slot that was used last, or a new one.
func (t *http1Transport) next() *slot {
	c, err := t.pool.AcquireConn(0, true) // true: no goroutine closes idle connections
	if err != nil {
		panic(err) // impossible: Dial never fails and MaxConns is unlimited
	}
	s := c.Conn().(*slot)
	if s.release == nil {
		s.release = func() { t.pool.ReleaseConn(c) }
		s.remove = func() { t.pool.CloseConn(c) }
	}
	return s
}

// lendLocked prepares u for an exchange.
func (t *http1Transport) lendLocked(u *HTTP1Conn, picked time.Time) {
	u.picked, u.complete = picked, false
	u.lifetime.Begin(t.sweeper, &t.options.ConnectionLimits)
	if t.suspected.After(picked) {
		u.wire.WakeReader()
	}
}

// dial opens a new connection for s within timeout, with TLS for a protocol if that is agreed. If
// it fails, it removes s.
func (t *http1Transport) dial(ctx context.Context, s *slot, picked time.Time, timeout time.Duration, shard uint32, agreed agreement, protocol string) (_ *HTTP1Conn, err error) {
	defer func() {
		if err != nil {
			s.remove()
		}
	}()
	defer panics.Contain(panics.Peer, func() { err = panics.Err })
	ctx, end := t.whileOpen(ctx)
	defer func() { err = end(err) }()
	var u *HTTP1Conn
	err = t.openWire(ctx, timeout, agreed, protocol, func(w socket.Wire) {
		u = newHTTP1Conn(t, w, agreed)
		t.addLocked(u, s, picked, shard)
	})
	return u, err
}

// DialStream: see [Connector].
func (t *http1Transport) DialStream(ctx context.Context, picked time.Time, timeout time.Duration, shard uint32) (*HTTP1Conn, error) {
	return t.dial(ctx, &slot{transport: t, remove: func() {}}, picked, timeout, shard, t.tls.agreement(&t.options), "")
}

// addLocked makes u the connection of s, for an exchange.
func (t *http1Transport) addLocked(u *HTTP1Conn, s *slot, picked time.Time, shard uint32) {
	s.u, u.slot, u.drains = u, s, t.drains
	t.open[u] = struct{}{}
	u.lifetime = socket.NewLifetime(t.sweeper, shard)
	t.lendLocked(u, picked)
	t.sweeper.Add(&u.entry, u.wire.Conn, shard)
}

// release makes a busy connection idle, if the transport may keep it. The last
// response must be complete and no bytes may follow it.
func (t *http1Transport) release(u *HTTP1Conn) {
	u.entry.Disarm()
	u.client.Store(nil)
	// They belong to the exchange.
	u.out.request, u.out.body, u.buffers, u.out.remainder, u.response.Section = nil, nil, nil, nil, nil
	u.used = true
	owner := u.owner.Swap(nil)
	if u.private {
		owner.DropOwn() // of another peer
	}
	t.mu.Lock()
	keep := u.drains == t.drains && !t.closed && !u.lifetime.Over
	switch {
	case u.private:
		if keep = keep && owner.KeepsOwn; keep {
			u.ownTo = t.sweeper.Now() + int64(u.idleTimeout)
			owner.own, owner.HasOwned = u, true
		}
	case keep && t.idle < t.options.MaxIdle:
		t.idle++
		u.idleUntil = t.sweeper.Now() + int64(u.idleTimeout)
		u.slot.release()
	default:
		keep = false
	}
	t.mu.Unlock()
	if !keep {
		t.discard(u)
	}
}

// takeOwn returns the connection that is kept for a client, if it is one of t; nil: there is none.
func (t *http1Transport) takeOwn(c *Client) *HTTP1Conn {
	u := c.own
	if u == nil || u.transport != t {
		return nil
	}
	c.own = nil
	t.mu.Lock()
	defer t.mu.Unlock()
	if u.ownTo == 0 { // it was too long, or the peer drains
		return nil
	}
	u.ownTo = 0
	return u
}

// lendOwn prepares a connection that was kept for a client for another exchange of it.
func (t *http1Transport) lendOwn(u *HTTP1Conn, picked time.Time) *slot {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lendLocked(u, picked)
	return u.slot
}

// endOwn closes the connections that are kept for clients until the coarse time now at most.
func (t *http1Transport) endOwn(now int64) {
	for _, u := range t.all() {
		t.mu.Lock()
		over := u.ownTo != 0 && u.ownTo <= now
		if over {
			u.ownTo = 0
		}
		t.mu.Unlock()
		if over {
			t.discard(u)
		}
	}
}

// discard closes a busy connection and removes its slot.
func (t *http1Transport) discard(u *HTTP1Conn) { t.detach(u).remove() }

// detach closes a busy connection and returns its slot for another one.
func (t *http1Transport) detach(u *HTTP1Conn) *slot {
	t.mu.Lock()
	t.forgetLocked(u)
	t.mu.Unlock()
	u.close()
	return u.slot
}

// forgetLocked detaches u from its slot.
func (t *http1Transport) forgetLocked(u *HTTP1Conn) {
	delete(t.open, u)
	u.slot.u = nil
	if u.idleUntil != 0 {
		t.idle--
	}
}

// Close closes the connection of a slot that leaves the pool. HostClient calls it.
func (s *slot) Close() error {
	s.transport.mu.Lock()
	u := s.u
	if u != nil {
		s.transport.forgetLocked(u)
	}
	s.transport.mu.Unlock()
	if u != nil {
		u.close()
	}
	return nil
}

// UsesTLS: see [Connector].
func (t *http1Transport) UsesTLS() bool { return t.tls.agreement(&t.options).secure != nil }

// CloseIdle: see [Connector].
func (t *http1Transport) CloseIdle(now int64) {
	var expired []*HTTP1Conn
	t.mu.Lock()
	for u := range t.open {
		if u.idleUntil != 0 && u.idleUntil <= now {
			t.forgetLocked(u)
			expired = append(expired, u)
		}
	}
	empty := t.idle == 0
	t.mu.Unlock()
	t.endOwn(now)
	for _, u := range expired {
		u.close()
	}
	if empty && len(expired) > 0 {
		t.pool.CloseIdleConnections() // slots without a connection
	}
}

// Drain closes the idle connections, and the busy ones when their exchange ends. It
// does not affect connections that are opened later, if the peer returns.
func (t *http1Transport) Drain() {
	t.mu.Lock()
	t.drains++
	t.mu.Unlock()
	t.pool.CloseIdleConnections()
	t.endOwn(math.MaxInt64)
}

// Suspect notes the suspicion, for both protocols, and wakes the exchanges of its own.
func (t *http1Transport) Suspect() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.suspected = time.Now()
	for u := range t.open {
		u.wire.WakeReader()
	}
}

// A peer may close an idle connection, because of a restart or a timeout, while a
// request is being sent on it. In contrast to a peer that closes connections because
// of requests, this happens soon after the start of the request, and rarely.
const (
	staleWithin = time.Second      // from the start of the request
	staleBurst  = time.Second      // in which all lost connections count as stale…
	staleQuiet  = 10 * time.Second // …if none was lost for this time before
)

// countsAsStale records that a reused connection was lost during a request, and
// reports whether the peer had probably closed it before.
func (t *http1Transport) countsAsStale(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.lostLast) >= staleQuiet {
		t.lostFirst = now
	}
	t.lostLast = now
	return now.Sub(t.lostFirst) < staleBurst
}

// Close ends the dials, of both protocols, and closes all connections of its own. It may be called
// again.
func (t *http1Transport) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.end()
	t.Cut()
}

// Cut: see [Connector].
func (t *http1Transport) Cut() {
	t.mu.Lock()
	t.cuts++
	t.mu.Unlock()
	t.Drain()
	for _, u := range t.all() { // Drain has closed the idle ones
		socket.ResetOnClose(u.wire.Conn) // the peer must not take the end for the end of the bytes
		u.wire.Conn.Close()              // its exchange discards it
	}
}

// all returns the open connections. To close one takes until step returns, which may wait for mu.
func (t *http1Transport) all() []*HTTP1Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.open))
}

// Connections: see [Connector].
func (t *http1Transport) Connections() (idle, busy int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.idle, len(t.open) - t.idle
}
