package upstream

import (
	"context"
	"sync/atomic"
	"time"

	"sluice/balancer"
	"sluice/observe/panics"
	"sluice/observe/wake"
	"sluice/proxy/socket"
)

// probeInterval is the time between probes. The first one is socket.FirstProbe after the start of a
// wait.
const probeInterval = 250 * time.Millisecond

// A Client is who waits for a response, as the peer's side of a try sees it.
type Client struct {
	Entry    socket.SweepEntry // the deadlines of waits for the client
	Presence Presence          // that asks whether the client is there
	Shard    uint32            // for counters and logs
	Gone     atomic.Bool       // Presence has found the connection closed

	// KeepsOwn: one connection to a peer on which the client has authenticated itself is kept for
	// it, until DropOwn. It is one connection too, with one exchange at a time. Others lose such
	// connections.
	KeepsOwn bool
	HasOwned bool       // a connection was kept: other connections do not know the client
	own      *HTTP1Conn // that is kept now, or was; nil: none. Of the exchange
}

// OwnPeer returns the peer to which a connection is kept for the client, or nil.
func (c *Client) OwnPeer() *balancer.Peer {
	if c.own == nil {
		return nil
	}
	return c.own.transport.peer
}

// DropOwn closes the connection that is kept for the client.
func (c *Client) DropOwn() {
	if u := c.own; u != nil && u.transport.takeOwn(c) == u {
		u.transport.discard(u)
	}
}

// A Presence knows a client's connection.
type Presence interface {
	// IsGone reports whether the client has closed its connection, and sets Client.Gone then.
	// Nobody else does: what asks may be late, and the Client be that of another request by then.
	// It is safe for concurrent use.
	IsGone() bool
	// Parties returns the client's block, for the bounds that its waits have: see sweepOwner of
	// package socket. It is safe for concurrent use.
	Parties() (client, peer any)
}

// A probe detects that a client has closed its connection while an upstream
// waits for the response, so that the peer can be released. The sweeper's goroutine
// probes slow exchanges only; others have no cost. The fields belong to that goroutine.
type probe struct {
	client   *Client
	deadline int64 // the upstream's, when client was first seen
	next     int64 // coarse time
}

// sweep probes client, if not nil, if it is time, and returns the time of the next
// call. u is the entry of the upstream.
func (p *probe) sweep(u *socket.SweepEntry, client *Client, now int64) int64 {
	deadline := u.Deadline.Load()
	switch {
	case client == nil || deadline == 0:
		p.client = nil
		return socket.Never
	case client != p.client || deadline != p.deadline:
		// The connection has made progress since the last sweep.
		*p = probe{client, deadline, now + int64(socket.FirstProbe)}
	case now >= p.next:
		p.next = now + int64(probeInterval)
		// A changed deadline means that the connection serves another exchange.
		if client.Presence.IsGone() && u.Deadline.CompareAndSwap(deadline, 1) {
			u.WriteDeadline.CompareAndSwap(deadline, 1) // where it still sends the request
			u.Conn.SetDeadline(socket.ALongTimeAgo)
		}
	}
	return p.next
}

// WhileThere returns a context that also ends when the client closes its connection, or no
// longer waits, and soon when other, if it is not nil, returns true. Another goroutine calls that.
// The caller calls end after the wait.
func (r Requirements) WhileThere(ctx context.Context, other func() bool) (_ context.Context, end context.CancelFunc) {
	client := r.Client
	var cancel context.CancelFunc
	if r.Deadline.IsZero() {
		ctx, cancel = context.WithCancel(ctx)
	} else {
		ctx, cancel = context.WithDeadline(ctx, r.Deadline)
	}
	if r.KeepForGone && other == nil {
		return ctx, cancel
	}
	return CancelWhenGone(ctx, cancel, func() bool {
		return !r.KeepForGone && (client.Presence.IsGone() || client.Gone.Load()) || other != nil && other()
	})
}

// CancelWhenGone calls cancel, which ends ctx, when isGone returns true, if the wait takes
// longer than socket.FirstProbe. The returned function also waits until isGone is not called any
// more.
func CancelWhenGone(ctx context.Context, cancel context.CancelFunc, isGone func() bool) (context.Context, context.CancelFunc) {
	looked := make(chan struct{})
	look := func() {
		defer close(looked)
		defer panics.Contain(panics.Exchange, cancel)
		ticker := time.NewTicker(probeInterval)
		defer ticker.Stop()
		for !isGone() {
			if wake.Await(ctx, ticker.C) != nil {
				return
			}
		}
		cancel()
	}
	timer := time.AfterFunc(socket.FirstProbe, look)
	return ctx, func() {
		cancel()
		if !timer.Stop() {
			<-looked
		}
	}
}
