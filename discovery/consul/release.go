package consul

import (
	"io"
	"time"
)

// releaseTimeout bounds how long a connection that is let go of is waited for. An
// agent closes one within milliseconds if its query waits for a view, and when the
// wait is over if it waits for a server, which is soon after some trouble.
const releaseTimeout = 3 * time.Second

// Release calls end, which has to end the client's sources, lets go of all
// connections, and returns when the agents have closed them too, or do not do so
// for releaseTimeout. Until then an agent counts a connection against the limit of
// what it accepts from one address. Abandoned is how many they have not closed.
func (c *Client) Release(end func()) (abandoned int) {
	c.meter.beginLetGo()
	end()
	for _, a := range c.agents.all {
		a.connections.renew()
		a.probeConnections.renew()
	}
	return c.meter.endLetGo()
}

// Shortage is how many connections fewer than it may the client opens at present,
// after answers 429 or Spare.
func (c *Client) Shortage() int { return c.gate.shortage() }

// Spare leaves so many connections of those that the client may open to others,
// and takes them back little by little, as after answers 429.
func (c *Client) Spare(connections int) { c.gate.spare(connections) }

// beginLetGo has connections that are closed from now on be waited for.
func (m *meter) beginLetGo() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lettingGo, m.abandoned = true, 0
}

// endLetGo ends that. It returns after the last connection, and how many the
// agents have not closed.
func (m *meter) endLetGo() (abandoned int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lettingGo = false
	for m.leaving > 0 {
		m.left.Wait()
	}
	return m.abandoned
}

// leave waits in the background until the agent has closed a connection, and then
// closes it, if that is wanted and possible.
func (c *meteredConn) leave() (leaving bool) {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return false
	}
	m := c.meter
	m.mu.Lock()
	if leaving = m.lettingGo; leaving {
		m.leaving++
	}
	m.mu.Unlock()
	if !leaving {
		return false
	}
	_ = half.CloseWrite()
	deadline := time.Now().Add(releaseTimeout)
	_ = c.SetReadDeadline(deadline)
	go func() {
		_, _ = io.Copy(io.Discard, c.Conn)
		_ = c.close()
		m.mu.Lock()
		defer m.mu.Unlock()
		m.leaving--
		if !time.Now().Before(deadline) {
			m.abandoned++
		}
		m.left.Broadcast()
	}()
	return true
}
