package consul

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"

	"sluice/observe/wake"
)

// dialingLimit bounds the requests that wait for a connection if requests share connections
// (HTTP/2): net/http dials one for each of them, and a connection carries a hundred requests.
const dialingLimit = 2

// connections are the connections to one address. All of them can be replaced at once.
// It is safe for concurrent use.
type connections struct {
	transport    func(dialFunc) *http.Transport // returns a transport that dials with it
	dial         dialFunc
	meter        *meter
	dialing      chan struct{} // one element per request that waits for a connection
	exclusive    chan struct{} // closed when each request needs its own connection (HTTP/1.1)
	setExclusive func()        // closes exclusive
	most         int           // limit of open while closing is not empty; 0: none
	silent       atomic.Bool   // the agent does not answer
	closers      sync.WaitGroup

	mu        sync.Mutex // guards the fields below
	current   *generation
	open      int                      // being opened, open, or closing
	closing   map[*connection]struct{} // closed here, and not by the agent yet
	freed     wake.All                 // open has decreased
	abandoned int                      // connections that the agent has not closed in time
	shut      bool                     // nobody waits for the agent any more
}

// generation is a transport whose connections are replaced together. The mu of
// connections guards its fields.
type generation struct {
	transport *http.Transport
	requests  int  // in flight
	replaced  bool // it gets no further requests
	open      map[*connection]struct{}
}

// newConnections returns connections of transport, opened with dial. shared says that requests may
// share connections. While the agent has yet to close some, there are at most most; 0: any number.
func newConnections(transport func(dialFunc) *http.Transport, dial dialFunc, m *meter, shared bool, most int) *connections {
	c := &connections{
		transport: transport,
		dial:      dial,
		meter:     m,
		dialing:   make(chan struct{}, dialingLimit),
		exclusive: make(chan struct{}),
		most:      most,
		closing:   make(map[*connection]struct{}),
	}
	c.setExclusive = sync.OnceFunc(func() { close(c.exclusive) })
	c.current = c.newGeneration()
	if !shared {
		c.setExclusive()
	}
	return c
}

// send sends r and calls read with the response. The connection stays in use until read returns.
func (c *connections) send(r *http.Request, read func(*http.Response) error) error {
	g := c.enter()
	defer c.leave(g)
	found, err := c.waitToDial(r.Context())
	if err != nil {
		return err
	}
	defer found()
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { found() }}
	own := r.Context().Value(ownConnection{}) != nil
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), trace))
	r.Close = r.Close || own
	response, err := g.transport.RoundTrip(r)
	if refused := (*refusal)(nil); errors.As(err, &refused) {
		response, err = refused.response, nil
	}
	if err != nil {
		return err
	}
	if response.ProtoMajor < 2 {
		c.setExclusive()
	}
	return read(response)
}

// waitToDial waits until a request may request a connection. The caller calls found,
// once or more often, when it has a connection or does not need one.
func (c *connections) waitToDial(ctx context.Context) (found func(), err error) {
	select {
	case c.dialing <- struct{}{}:
		return sync.OnceFunc(func() { <-c.dialing }), nil
	case <-c.exclusive:
		return func() {}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *connections) enter() *generation {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current.requests++
	return c.current
}

func (c *connections) leave(g *generation) {
	c.mu.Lock()
	g.requests--
	c.mu.Unlock()
	c.sweep(g)
}

// inUse reports whether there are connections for later requests.
func (c *connections) inUse() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.current.open) > 0
}

// renew replaces all connections: later requests open new ones, and the old ones are
// closed when their requests have ended. A cancellation is not enough for shared
// connections. A half-open one would be used again. And Consul continues a canceled
// query, so its stream remains in use until its wait is over, and later requests hang.
func (c *connections) renew() {
	next := c.newGeneration()
	c.mu.Lock()
	g := c.current
	g.replaced = true
	c.current = next
	c.mu.Unlock()
	c.sweep(g)
}

// closeIdle closes the connections without a request, for others to the same agent.
func (c *connections) closeIdle() {
	c.mu.Lock()
	transport := c.current.transport
	c.mu.Unlock()
	transport.CloseIdleConnections()
}

// sweep closes the connections of g if it is replaced and has no requests.
func (c *connections) sweep(g *generation) {
	c.mu.Lock()
	var unused []*connection
	if g.replaced && g.requests == 0 {
		unused = slices.Collect(maps.Keys(g.open))
	}
	replaced := g.replaced
	c.mu.Unlock()
	if replaced {
		g.transport.CloseIdleConnections() // and the ones that a request gives back from now on
	}
	for _, conn := range unused {
		conn.Close()
	}
}

func (c *connections) newGeneration() *generation {
	g := &generation{open: make(map[*connection]struct{})}
	g.transport = c.transport(func(ctx context.Context, network, address string) (net.Conn, error) {
		if err := c.awaitRoom(ctx); err != nil {
			return nil, err
		}
		conn, err := c.dial(ctx, network, address)
		if err != nil {
			c.free(nil, false)
			return nil, err
		}
		c.meter.opened.Add(1)
		c.meter.countOpen(1)
		opened := &connection{Conn: conn, connections: c, generation: g}
		c.mu.Lock()
		g.open[opened] = struct{}{}
		c.mu.Unlock()
		c.sweep(g) // it may be replaced meanwhile
		return opened, nil
	})
	return g
}
