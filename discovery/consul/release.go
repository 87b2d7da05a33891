package consul

import (
	"io"
	"time"
)

// releaseTimeout bounds how long a connection that is let go of is waited for. An
// agent notices the end of one within milliseconds, unless it hangs.
const releaseTimeout = 2 * time.Second

// Release calls end, which has to end the client's sources, lets go of all
// connections, and returns when the agents have closed them too, or do not do so
// for releaseTimeout. Until then an agent counts a connection against the limit of
// what it accepts from one address, and somebody else would be refused.
func (c *Client) Release(end func()) {
	c.meter.letGo(true)
	end()
	for _, a := range c.agents.all {
		a.connections.renew()
		a.probeConnections.renew()
	}
	c.meter.letGo(false)
}

// letGo says whether connections that are closed from now on are to be waited
// for. When that ends, it returns after the last one.
func (m *meter) letGo(begin bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lettingGo = begin
	for !begin && m.leaving > 0 {
		m.left.Wait()
	}
}

// leave waits in the background until the agent has closed a connection, and then
// closes it, if that is wanted and possible.
func (c *meteredConn) leave() (leaving bool) {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return false
	}
	c.meter.mu.Lock()
	if leaving = c.meter.lettingGo; leaving {
		c.meter.leaving++
	}
	c.meter.mu.Unlock()
	if !leaving {
		return false
	}
	_ = half.CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(releaseTimeout))
	go func() {
		_, _ = io.Copy(io.Discard, c.Conn)
		_ = c.close()
		c.meter.mu.Lock()
		c.meter.leaving--
		c.meter.mu.Unlock()
		c.meter.left.Broadcast()
	}()
	return true
}
