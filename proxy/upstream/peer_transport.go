package upstream

import (
	"context"
	"net"
	"sync"
	"time"

	"sluice/balancer"
	"sluice/observe/panics"
	"sluice/proxy/socket"
)

// A peerTransport owns the connections to one peer. Each request says by which protocol it is sent:
// that of a service may change while its peers stay. It implements [Connector] and is safe for
// concurrent use.
type peerTransport struct {
	*http1Transport
	http2      *http2Transport
	connectors *Connectors
}

// NewTransport returns the transport factory of a pool, for [balancer.Options].
func (all *Connectors) NewTransport(o Options) func(*balancer.Peer) balancer.Transport {
	return func(p *balancer.Peer) balancer.Transport {
		h1 := all.newHTTP1Transport(p, o)
		t := &peerTransport{http1Transport: h1, http2: newHTTP2Transport(&h1.common), connectors: all}
		all.add(t)
		return t
	}
}

// Connect implements [Connector].
func (t *peerTransport) Connect(ctx context.Context, r Requirements, stale Conn) (Conn, time.Duration, error) {
	if r.HTTP2 {
		return t.http2.Connect(ctx, r, stale)
	}
	return t.http1Transport.Connect(ctx, r, stale)
}

// CloseIdle implements [Connector].
func (t *peerTransport) CloseIdle(now int64) {
	t.http1Transport.CloseIdle(now)
	t.http2.CloseIdle(now)
}

// Drain implements [balancer.Transport].
func (t *peerTransport) Drain() {
	t.http1Transport.Drain()
	t.http2.Drain()
}

// Suspect implements [balancer.Transport]. It wakes the exchanges that wait for the peer, so that
// they can be retried with another peer.
func (t *peerTransport) Suspect() {
	t.http1Transport.Suspect()
	t.http2.wake()
}

// Cut implements [Connector].
func (t *peerTransport) Cut() {
	t.http1Transport.Cut()
	t.http2.Cut()
}

// Close implements [balancer.Transport]. Exchanges fail as if the peer had closed connections.
func (t *peerTransport) Close() {
	t.connectors.remove(t)
	t.http1Transport.Close()
	t.http2.Close()
}

// Connections implements [Connector].
func (t *peerTransport) Connections() (idle, busy int) {
	idle, busy = t.http1Transport.Connections()
	of, lent := t.http2.Connections()
	return idle + of, busy + lent
}

// common is what the transports of both protocols have in common.
type common struct {
	peer    *balancer.Peer
	options Options
	sweeper *socket.Sweeper
	tls     peerTLS
	refused refusedAnswers

	// over ends with end, when the transports are closed. Nothing may come to the peer after
	// that: it may no longer lead. A dial ends then, so that the request finds another peer at
	// once.
	over context.Context
	end  context.CancelFunc

	mu sync.Mutex
	// mu guards the fields below, and those of the transports that say so. A connection's mutex
	// may be taken while it is held.
	suspected time.Time // of the last call of Suspect
	cuts      int       // number of calls of Cut
	closed    bool
}

// suspectedSince reports whether Suspect was called after picked.
func (c *common) suspectedSince(picked time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.suspected.After(picked)
}

func (c *common) cutsSoFar() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cuts
}

// whileOpen returns ctx for a dial, which ends with c too. end takes the error of the dial, and
// returns it, or [net.ErrClosed] if c was closed: that is no failure of the peer.
func (c *common) whileOpen(ctx context.Context) (_ context.Context, end func(error) error) {
	ctx, cancel := context.WithCancelCause(ctx)
	if c.over.Err() != nil { // since the peer was picked
		cancel(net.ErrClosed)
	}
	stop := context.AfterFunc(c.over, func() {
		defer panics.Contain(panics.Peer, nil)
		cancel(net.ErrClosed)
	})
	return ctx, func(err error) error {
		stop()
		cancel(nil)
		if err != nil && c.over.Err() != nil {
			return net.ErrClosed
		}
		return err
	}
}

// openWire opens a connection within timeout, with TLS for a protocol if that is agreed, and calls
// add with it. If that did not return, also because of a panic, it closes the connection.
func (c *common) openWire(ctx context.Context, timeout time.Duration, agreed agreement, protocol string, add func(socket.Wire)) error {
	start, cuts := c.sweeper.Exact(), c.cutsSoFar()
	conn, err := socket.Dial(ctx, c.sweeper, c.peer.Address(), timeout, c.peer.Control)
	c.peer.NoteRefusal(err)
	if err != nil {
		return err
	}
	added := false
	defer func() {
		if !added {
			conn.Close()
		}
	}()
	w := socket.Wire{Conn: conn}
	if w.Raw, err = conn.SyscallConn(); err == nil && agreed.secure != nil {
		left := timeout - time.Duration(c.sweeper.Exact()-start)
		w.TLS, err = c.tls.handshake(ctx, conn, agreed, protocol, time.Now().Add(left))
	}
	if err == nil {
		err = c.admit(cuts, func() { add(w) })
	}
	added = err == nil
	return err
}

// admit calls add, with mu held, unless Cut was called since there were cuts calls.
func (c *common) admit(cuts int, add func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.cuts != cuts {
		return net.ErrClosed
	}
	add()
	return nil
}
