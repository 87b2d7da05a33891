package proxy

import (
	"context"
	"sync/atomic"
	"time"

	"sluice/observe/panics"
	"sluice/proxy/socket"
)

// probeInterval is the time between probes. The first one is socket.FirstProbe after the start of a wait.
const probeInterval = 250 * time.Millisecond

// An upstreamClient is who waits for a response, as the peer's side of a try sees it.
type upstreamClient struct {
	socket.SweepEntry             // the deadlines of waits for the client
	presence          presence    // that asks whether the client is there
	shard             uint32      // for counters and logs
	gone              atomic.Bool // a probe found that the client has closed its connection
}

// A presence knows a client's connection.
type presence interface {
	// IsGone reports whether the client has closed its connection. It is safe for
	// concurrent use.
	IsGone() bool
}

// A clientProbe detects that a client has closed its connection while an upstream
// waits for the response, so that the peer can be released. The sweeper's goroutine
// probes slow exchanges only; others have no cost. The fields belong to that goroutine.
type clientProbe struct {
	client   *upstreamClient
	deadline int64 // the upstream's, when client was first seen
	next     int64 // coarse time
}

// sweep probes client, if not nil, if it is time, and returns the time of the next
// call. u is the entry of the upstream.
func (p *clientProbe) sweep(u *socket.SweepEntry, client *upstreamClient, now int64) int64 {
	deadline := u.Deadline.Load()
	switch {
	case client == nil || deadline == 0:
		p.client = nil
		return socket.Never
	case client != p.client || deadline != p.deadline:
		// The connection has made progress since the last sweep.
		*p = clientProbe{client, deadline, now + int64(socket.FirstProbe)}
	case now >= p.next:
		p.next = now + int64(probeInterval)
		// A changed deadline means that the connection serves another exchange.
		if client.presence.IsGone() && u.Deadline.CompareAndSwap(deadline, 1) {
			client.gone.Store(true)
			u.WriteDeadline.CompareAndSwap(deadline, 1) // where it still sends the request
			u.Conn.SetDeadline(socket.ALongTimeAgo)
		}
	}
	return p.next
}

// OnSweep implements sweepOwner.
func (u *upstreamConn) OnSweep(now int64) int64 {
	return u.probe.sweep(&u.SweepEntry, u.client.Load(), now)
}

// whileThere returns a context that also ends when the client closes its connection, or no
// longer waits. The caller calls end after the wait.
func (r requirements) whileThere(ctx context.Context) (_ context.Context, end context.CancelFunc) {
	client := r.client
	var cancel context.CancelFunc
	if r.deadline.IsZero() {
		ctx, cancel = context.WithCancel(ctx)
	} else {
		ctx, cancel = context.WithDeadline(ctx, r.deadline)
	}
	if r.keepForGone {
		return ctx, cancel
	}
	return cancelWhenGone(ctx, cancel, func() bool {
		if client.presence.IsGone() {
			client.gone.Store(true)
		}
		return client.gone.Load()
	})
}

// cancelWhenGone calls cancel, which ends ctx, when isGone returns true, if the wait takes
// longer than socket.FirstProbe. The returned function also waits until isGone is not called any
// more.
func cancelWhenGone(ctx context.Context, cancel context.CancelFunc, isGone func() bool) (context.Context, context.CancelFunc) {
	looked := make(chan struct{})
	look := func() {
		defer close(looked)
		defer panics.Contain(panics.Exchange, cancel)
		ticker := time.NewTicker(probeInterval)
		defer ticker.Stop()
		for !isGone() {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
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
