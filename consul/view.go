package consul

import (
	"cmp"
	"time"
)

const (
	// viewLag is how long after a failure the views of an agent may be out of date. A
	// view follows a stream from a server. When the stream fails, the agent opens
	// another one after a delay of up to a minute, and answers from the old view
	// meanwhile (submatview.defaultWaiter in Consul's source).
	viewLag = 70 * time.Second

	// bypassWaitEach, times the number of loops, but at least bypassWaitMin, is how
	// long a query that bypasses the views blocks: fifty queries a second for all
	// loops. Consul continues such a query after its cancellation and counts its
	// connection until the wait is over, so that further failures leave few
	// connections. A query that a view answers ends at once.
	bypassWaitEach = 20 * time.Millisecond
	bypassWaitMin  = 2 * time.Second
)

// bypassView makes a server answer a blocking query, with a short wait, if the agent's
// view may be out of date: after an outage of the agent or, if a view may answer, a
// failed query. A server answers at once when there is a change.
func (c *Client) bypassView(q *Query, failed time.Time) {
	now := time.Now()
	if now.Sub(c.agents.lastOutage()) > viewLag && (!q.View || now.Sub(failed) > viewLag) {
		return
	}
	if q.View {
		q.UseCache = false
		q.Near = cmp.Or(q.Near, "_agent") // a view cannot sort by distance
	}
	_, loops := c.gate.size()
	q.WaitTime = min(q.WaitTime, max(bypassWaitMin, time.Duration(loops)*bypassWaitEach))
}
