package consul

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
)

// keptConnection notices that the connection which probes keep has been closed
// by the other side. An agent that does so has probably been restarted, perhaps
// faster than probes could see, and may have forgotten what was registered. It is
// safe for concurrent use.
type keptConnection struct {
	kept atomic.Bool // there is one for the next request
	lost atomic.Bool // and it was gone by then
}

// trace returns a context for a request on the connection.
func (k *keptConnection) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) {
			// Where none is kept, by a proxy for instance, none is lost. With HTTP/2
			// only this tells that one is.
			if k.kept.Swap(c.Reused) && !c.Reused {
				k.lost.Store(true)
			}
		},
		PutIdleConn: func(err error) { k.kept.Store(err == nil) },
	})
}

// closed reports whether the connection has been closed since it was last asked.
func (k *keptConnection) closed() bool { return k.lost.Swap(false) }
