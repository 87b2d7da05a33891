package consul

import (
	"context"
	"maps"
	"slices"
	"time"

	"sluice/observe/panics"
)

// An agent counts a connection against its limit for the client's address until both sides have
// closed it. So Close ends the client's side, and the connection counts until the agent ends its
// own. After an outage new connections replace all. They wait up to 0.5 s for old ones to close,
// and then only while the agent would count too many.
const (
	// closeTimeout bounds the wait for an agent that answers. It closes the connection of a
	// query that a view answers within milliseconds, and others when the query's wait is over.
	closeTimeout = 3 * time.Second

	// maxUnread is how much of an answer that nobody wants is read. If the agent sends more, the
	// connection is cut.
	maxUnread = 256 << 10

	// roomTimeout is how long a connection waits until the client has no more than it may have.
	roomTimeout = 500 * time.Millisecond
)

// closeLater closes conn when the agent has closed it, unless c is shut or many wait. It reports
// whether it does.
func (c *connections) closeLater(conn *connection) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut || c.most > 0 && len(c.closing) >= counted(c.most) {
		return false
	}
	delete(conn.generation.open, conn)
	c.closing[conn] = struct{}{}
	c.closers.Go(func() {
		defer panics.Contain(panics.Watch, nil)
		inTime := conn.awaitAgent()
		_ = conn.Conn.Close()
		c.free(conn, !inTime)
	})
	return true
}

// free notes that a connection, or for nil the attempt to open one, is over.
func (c *connections) free(conn *connection, abandoned bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	if conn != nil {
		delete(conn.generation.open, conn)
		delete(c.closing, conn)
	}
	if abandoned {
		c.abandoned++
	}
	c.freed.Send()
}

// awaitRoom counts a further connection, once there is room beside those that the agent has yet
// to close.
func (c *connections) awaitRoom(ctx context.Context) error {
	timeout := time.After(roomTimeout)
	for timedOut := false; ; {
		freed := c.countIfRoom(timedOut)
		if freed == nil {
			return nil
		}
		select {
		case <-freed:
		case <-timeout:
			timedOut = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// countIfRoom counts a further connection, if there is room. Otherwise it returns what to wait for.
// timedOut: the client may have as many as the agent may count.
func (c *connections) countIfRoom(timedOut bool) (freed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	most := c.most
	if timedOut {
		most = counted(c.most)
	}
	if c.most > 0 && len(c.closing) > 0 && c.open >= most {
		return c.freed.Wait()
	}
	c.open++
	return nil
}

// awaitClosed waits until the agent has closed all connections that are closed here, or until
// deadline. It returns how many it has not closed in time.
func (c *connections) awaitClosed(deadline time.Time) int {
	timeout := time.After(time.Until(deadline))
	for {
		closing, abandoned, freed := c.left()
		if closing == 0 {
			return abandoned
		}
		select {
		case <-freed:
		case <-timeout:
			return abandoned + closing
		}
	}
}

func (c *connections) left() (closing, abandoned int, freed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.closing), c.abandoned, c.freed.Wait()
}

// close closes all connections without a wait for the agent.
func (c *connections) close() {
	c.renew()
	for _, conn := range c.shutDown() {
		_ = conn.Conn.Close()
	}
	c.closers.Wait()
}

// shutDown ends the waits for the agent to come. It returns the connections of the present ones.
func (c *connections) shutDown() []*connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut = true
	return slices.Collect(maps.Keys(c.closing))
}
