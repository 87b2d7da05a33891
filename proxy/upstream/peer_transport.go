package upstream

import (
	"context"
	"sync/atomic"
	"time"

	"sluice/balancer"
)

// A peerTransport owns the connections to one peer. Each request says by which protocol it is sent:
// that of a service may change while its peers stay. It implements [Connector] and is safe for
// concurrent use.
type peerTransport struct {
	*http1Transport
	connectors *Connectors
	http2      atomic.Pointer[http2Transport] // nil: no request was sent by it
}

// NewTransport returns the transport factory of a pool, for [balancer.Options].
func (all *Connectors) NewTransport(o Options) func(*balancer.Peer) balancer.Transport {
	return func(p *balancer.Peer) balancer.Transport {
		t := &peerTransport{http1Transport: all.newHTTP1Transport(p, o), connectors: all}
		all.add(t)
		return t
	}
}

// byHTTP2 returns what sends requests by HTTP/2. A new one misses no call of Close or Suspect:
// either has taken mu before, or sees it.
func (t *peerTransport) byHTTP2() *http2Transport {
	if h := t.http2.Load(); h != nil {
		return h
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.http2.Load()
	if h == nil {
		h = newHTTP2Transport(t.http1Transport)
		h.suspected, h.shut = t.suspected, t.closed
		t.http2.Store(h)
	}
	return h
}

// Connect implements [Connector].
func (t *peerTransport) Connect(ctx context.Context, r Requirements, stale Conn) (Conn, time.Duration, error) {
	if r.HTTP2 {
		return t.byHTTP2().Connect(ctx, r, stale)
	}
	return t.http1Transport.Connect(ctx, r, stale)
}

// CloseIdle implements [Connector].
func (t *peerTransport) CloseIdle(now int64) {
	t.http1Transport.CloseIdle(now)
	if h := t.http2.Load(); h != nil {
		h.CloseIdle(now)
	}
}

// Drain implements [balancer.Transport].
func (t *peerTransport) Drain() {
	t.http1Transport.Drain()
	if h := t.http2.Load(); h != nil {
		h.Drain()
	}
}

// Suspect implements [balancer.Transport].
func (t *peerTransport) Suspect() {
	t.http1Transport.Suspect()
	if h := t.http2.Load(); h != nil {
		h.Suspect()
	}
}

// Cut implements [Connector].
func (t *peerTransport) Cut() {
	t.http1Transport.Cut()
	if h := t.http2.Load(); h != nil {
		h.Cut()
	}
}

// Close implements [balancer.Transport].
func (t *peerTransport) Close() {
	t.connectors.remove(t)
	t.http1Transport.Close()
	if h := t.http2.Load(); h != nil {
		h.Close()
	}
}

// Connections implements [Connector].
func (t *peerTransport) Connections() (idle, busy int) {
	idle, busy = t.http1Transport.Connections()
	if h := t.http2.Load(); h != nil {
		of, lent := h.Connections()
		idle, busy = idle+of, busy+lent
	}
	return idle, busy
}
