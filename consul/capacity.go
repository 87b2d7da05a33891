package consul

import (
	"context"
	"errors"
	"time"
)

// errModeChanged is the cause of the end of a context of InMode.
var errModeChanged = errors.New("watch mode changed: the loops are oversubscribed now, or no longer")

// InMode calls f until ctx ends or f returns something else than the cause of the end of mode. mode
// ends with ctx, and when oversubscribed changes: there are more loops than queries that may block
// at a time.
func (c *Client) InMode(ctx context.Context, f func(mode context.Context, oversubscribed bool) error) (err error) {
	for err = errModeChanged; errors.Is(err, errModeChanged) && ctx.Err() == nil; {
		err = c.inPresentMode(ctx, f)
	}
	return err
}

func (c *Client) inPresentMode(ctx context.Context, f func(context.Context, bool) error) error {
	oversubscribed, present := c.gate.oversubscription()
	mode, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(present, func() { cancel(errModeChanged) })
	defer stop()
	return f(mode, oversubscribed)
}

// Capacity returns the number of queries that may be in flight, and the number of loops.
func (c *Client) Capacity() (limit, loops int) {
	g := c.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limit, g.loops
}

// Resized returns a channel that is closed when the limit of Capacity changes.
func (c *Client) Resized() <-chan struct{} { return c.gate.resized.Wait() }

// Reduction returns what another client at this address passes to Reduce, together with the result
// of Release. It is 0 unless answers 429 or Reduce have lowered the limit.
func (c *Client) Reduction() int {
	g := c.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.accepted >= g.most {
		return 0
	}
	return g.total() - g.accepted
}

// Reduced reports whether the limit of Capacity is below its maximum: by answers 429, by Reduce,
// or by canceled queries that the agent continues.
func (c *Client) Reduced() bool {
	g := c.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limit < g.most
}

// Reduce lowers the limit of Capacity, as the agent still counts connections of another client:
// both together may exceed the maximum by three eighths. It grows again as after an answer 429.
func (c *Client) Reduce(connections int) {
	g := c.gate
	if connections <= 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changed = time.Now()
	g.resizeLocked(min(g.accepted, max(minConnections, g.total()-connections)))
}

// ReleaseConnections lets another client at this address have the connections: this one keeps 8.
func (c *Client) ReleaseConnections() {
	g := c.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.connections = min(g.connections, minConnections)
	g.adaptLocked()
}
