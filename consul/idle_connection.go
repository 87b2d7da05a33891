package consul

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
)

// idleConnection detects that an agent has closed the idle connection of the probes. The
// agent has probably restarted, perhaps between two probes, and may have lost its
// registrations. It is safe for concurrent use.
type idleConnection struct {
	open atomic.Bool // the last request left the connection open
	lost atomic.Bool // it was closed before the next request
}

// trace returns a context for a request on the connection.
func (i *idleConnection) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) {
			// Some proxies keep no connection open: then none is lost. With HTTP/2 only
			// a new connection shows the loss.
			if i.open.Swap(c.Reused) && !c.Reused {
				i.lost.Store(true)
			}
		},
		PutIdleConn: func(err error) { i.open.Store(err == nil) },
	})
}

// takeLost reports whether the connection was lost since the last call.
func (i *idleConnection) takeLost() bool { return i.lost.Swap(false) }
