package consul

import "time"

// Release calls end, which must end all loops of the client, closes all connections,
// and returns when the agents have closed them too, or after 3 s. Until then an agent
// counts a connection against its limit for the client's address. abandoned is the
// number of connections that the agents have not closed.
func (c *Client) Release(end func()) (abandoned int) {
	var all []*connections
	for _, a := range c.agents.all {
		all = append(all, a.connections, a.probeConnections)
	}
	for _, s := range all {
		s.forgetAbandoned()
	}
	end()
	for _, s := range all {
		s.renew()
	}
	deadline := time.Now().Add(closeTimeout)
	for _, s := range all {
		abandoned += s.awaitClosed(deadline)
	}
	return abandoned
}

// Reduction returns by how many connections answers 429 and Reduce have lowered the
// limit.
func (c *Client) Reduction() int { return c.gate.reduction() }

// Reduce lowers the limit of connections, for other clients at this address. It grows
// again as after an answer 429.
func (c *Client) Reduce(connections int) { c.gate.reduce(connections) }
