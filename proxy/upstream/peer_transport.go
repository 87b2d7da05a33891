package upstream

import (
	"context"
	"sync/atomic"
	"time"

	"sluice/balancer"
)

// A peerTransport owns the connections to one peer. Each request says by which protocol it is sent: that of a service may
// change while its peers stay. It implements [Connector] and is safe for concurrent use.
type peerTransport struct {
	*Transport
	connectors *Connectors
	http2      atomic.Pointer[http2Transport] // nil: no request was sent by it
}

// NewTransport returns the transport factory of a pool, for [balancer.Options].
func (all *Connectors) NewTransport(o Options) func(*balancer.Peer) balancer.Transport {
	return func(p *balancer.Peer) balancer.Transport {
		t := &peerTransport{Transport: all.newTransport(p, o), connectors: all}
		all.add(t)
		return t
	}
}

// byHTTP2 returns what sends requests by HTTP/2.
func (t *peerTransport) byHTTP2() *http2Transport {
	if h := t.http2.Load(); h != nil {
		return h
	}
	h := newHTTP2Transport(t.Transport)
	if !t.http2.CompareAndSwap(nil, h) {
		return t.http2.Load()
	}
	if _, closed := t.cutsSoFar(); closed { // Close may have come before
		h.Close()
	}
	return h
}

// Connect implements [Connector].
func (t *peerTransport) Connect(ctx context.Context, r Requirements, stale Conn) (Conn, time.Duration, error) {
	if r.HTTP2 {
		return t.byHTTP2().Connect(ctx, r, stale)
	}
	return t.Transport.Connect(ctx, r, stale)
}

// CloseIdle implements [Connector].
func (t *peerTransport) CloseIdle(now int64) {
	t.Transport.CloseIdle(now)
	if h := t.http2.Load(); h != nil {
		h.CloseIdle(now)
	}
}

// Drain implements [balancer.Transport].
func (t *peerTransport) Drain() {
	t.Transport.Drain()
	if h := t.http2.Load(); h != nil {
		h.Drain()
	}
}

// Suspect implements [balancer.Transport].
func (t *peerTransport) Suspect() {
	t.Transport.Suspect()
	if h := t.http2.Load(); h != nil {
		h.Suspect()
	}
}

// Cut implements [Connector].
func (t *peerTransport) Cut() {
	t.Transport.Cut()
	if h := t.http2.Load(); h != nil {
		h.Cut()
	}
}

// Close implements [balancer.Transport].
func (t *peerTransport) Close() {
	t.connectors.remove(t)
	t.Transport.Close()
	if h := t.http2.Load(); h != nil {
		h.Close()
	}
}

// Connections implements [Connector].
func (t *peerTransport) Connections() (idle, busy int) {
	idle, busy = t.Transport.Connections()
	if h := t.http2.Load(); h != nil {
		of, lent := h.Connections()
		idle, busy = idle+of, busy+lent
	}
	return idle, busy
}
