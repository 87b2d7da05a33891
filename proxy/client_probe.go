package proxy

import (
	"context"
	"sync"
	"time"
)

const (
	firstProbe    = 100 * time.Millisecond // from the start of a wait
	probeInterval = 250 * time.Millisecond
)

// A clientProbe detects that a client has closed its connection while an upstream
// waits for the response, so that the peer can be released. The sweeper's goroutine
// probes slow exchanges only; others have no cost. The fields belong to that goroutine.
type clientProbe struct {
	client   *client
	deadline int64 // the upstream's, when client was first seen
	next     int64 // coarse time
}

// sweep probes client, if not nil, if it is time, and returns the time of the next
// call. u is the entry of the upstream.
func (p *clientProbe) sweep(u *sweepEntry, client *client, now int64) int64 {
	deadline := u.deadline.Load()
	switch {
	case client == nil || deadline == 0:
		p.client = nil
		return never
	case client != p.client || deadline != p.deadline:
		// The connection has made progress since the last sweep.
		*p = clientProbe{client, deadline, now + int64(firstProbe)}
	case now >= p.next:
		p.next = now + int64(probeInterval)
		// A changed deadline means that the connection serves another exchange.
		if client.front.isGone() && u.deadline.CompareAndSwap(deadline, 1) {
			client.gone.Store(true)
			u.writeDeadline.CompareAndSwap(deadline, 1) // where it still sends the request
			u.conn.SetDeadline(aLongTimeAgo)
		}
	}
	return p.next
}

// onSweep implements sweepOwner.
func (u *upstreamConn) onSweep(now int64) int64 {
	return u.probe.sweep(&u.sweepEntry, u.client.Load(), now)
}

// Waiting implements [attempt.Exchange]. The context also ends when the server stops
// or the client closes its connection.
func (x *httpExchange) Waiting(timeout time.Duration) (context.Context, context.CancelFunc) {
	c := x.client
	ctx, cancel := context.WithTimeout(c.server.ctx, x.withinDeadline(timeout))
	if c.options.KeepForGoneClients {
		return ctx, cancel
	}
	return cancelWhenGone(ctx, cancel, func() bool {
		if c.front.isGone() {
			c.gone.Store(true)
		}
		return c.gone.Load()
	})
}

// cancelWhenGone calls cancel, which ends ctx, when isGone returns true. The returned
// function also waits until isGone is not called any more.
func cancelWhenGone(ctx context.Context, cancel context.CancelFunc, isGone func() bool) (context.Context, context.CancelFunc) {
	var looking sync.WaitGroup
	looking.Go(func() {
		ticker := time.NewTicker(firstProbe)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if isGone() {
					cancel()
				}
			}
		}
	})
	return ctx, func() { cancel(); looking.Wait() }
}
