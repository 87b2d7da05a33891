package consul

import (
	"io"
	"time"

	"sluice/observe/panics"
)

// releaseTimeout bounds the wait of Release for an agent. It closes the connection of a
// query that a view answers within milliseconds, and others when the query's wait is
// over.
const releaseTimeout = 3 * time.Second

// Release calls end, which must end all loops of the client, closes all connections,
// and returns when the agents have closed them too, or after 3 s. Until then an agent
// counts a connection against its limit for the client's address. abandoned is the
// number of connections that the agents have not closed.
func (c *Client) Release(end func()) (abandoned int) {
	c.meter.beginRelease()
	end()
	for _, a := range c.agents.all {
		a.connections.renew()
		a.probeConnections.renew()
	}
	return c.meter.endRelease()
}

// Reduction returns by how many connections answers 429 and Reduce have lowered the
// limit.
func (c *Client) Reduction() int { return c.gate.reduction() }

// Reduce lowers the limit of connections, for other clients at this address. It grows
// again as after an answer 429.
func (c *Client) Reduce(connections int) { c.gate.reduce(connections) }

// beginRelease makes endRelease wait for connections that are closed from now on.
func (m *meter) beginRelease() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.releasing, m.abandoned = true, 0
}

// endRelease waits for these connections, and returns how many the agents have not
// closed.
func (m *meter) endRelease() (abandoned int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.releasing = false
	for m.closing > 0 {
		m.closed.Wait()
	}
	return m.abandoned
}

// closeInBackground closes the connection when the agent has closed its side, if a
// release waits for it. It reports whether it does.
func (c *meteredConn) closeInBackground() (closing bool) {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return false
	}
	m := c.meter
	m.mu.Lock()
	if closing = m.releasing; closing {
		m.closing++
	}
	m.mu.Unlock()
	if !closing {
		return false
	}
	_ = half.CloseWrite()
	deadline := time.Now().Add(releaseTimeout)
	_ = c.SetReadDeadline(deadline)
	go func() {
		defer panics.Contain(panics.Watch, nil)
		_, _ = io.Copy(io.Discard, c.Conn)
		_ = c.close()
		m.mu.Lock()
		defer m.mu.Unlock()
		m.closing--
		if !time.Now().Before(deadline) {
			m.abandoned++
		}
		m.closed.Broadcast()
	}()
	return true
}
