package consul

// CancelQueries cancels the queries in flight, as after an outage of the agent.
func (c *Client) CancelQueries() {
	c.agents.mu.Lock()
	defer c.agents.mu.Unlock()
	c.agents.current.cancelQueriesLocked(true, errRecovered)
}
