package consul

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
)

// seekersLimit is how many requests at a time may be without a connection where
// connections are shared. Net/http dials one for each of them, and each takes a
// hundred requests.
const seekersLimit = 2

// connections carry the requests to one address, and can all be left behind. It
// is safe for concurrent use.
type connections struct {
	transport func(dialFunc) *http.Transport // makes one that dials with it
	dial      dialFunc
	seekers   chan struct{} // one element per request that has no connection yet
	alone     chan struct{} // closed once it is known that each request needs a connection of its own

	mu      sync.Mutex // guards the fields below
	current *generation
	known   bool // alone is closed
}

// generation is a transport whose connections are left behind together. The mu of
// connections guards its fields.
type generation struct {
	transport *http.Transport
	requests  int  // in flight
	left      bool // no more will come
	open      map[*generationConn]struct{}
}

// newConnections makes connections that transport opens with dial. Shared says
// that several requests at a time may share one.
func newConnections(transport func(dialFunc) *http.Transport, dial dialFunc, shared bool) *connections {
	c := &connections{
		transport: transport,
		dial:      dial,
		seekers:   make(chan struct{}, seekersLimit),
		alone:     make(chan struct{}),
	}
	c.current = c.newGeneration()
	if !shared {
		c.setAlone()
	}
	return c
}

// setAlone notes that each request needs a connection of its own.
func (c *connections) setAlone() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known {
		c.known = true
		close(c.alone)
	}
}

// send sends r, and has read read the answer before the connections that it came
// on may be closed.
func (c *connections) send(r *http.Request, read func(*http.Response) error) error {
	g := c.enter()
	defer c.leave(g)
	found, err := c.seek(r.Context())
	if err != nil {
		return err
	}
	defer found()
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { found() }}
	response, err := g.transport.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if err != nil {
		return err
	}
	if response.ProtoMajor < 2 {
		c.setAlone()
	}
	return read(response)
}

// seek waits until r may look for a connection. The caller calls found, once or
// more often, when it has one or does not want it any more.
func (c *connections) seek(ctx context.Context) (found func(), err error) {
	select {
	case <-c.alone:
		return func() {}, nil
	default:
	}
	select {
	case c.seekers <- struct{}{}:
		return sync.OnceFunc(func() { <-c.seekers }), nil
	case <-c.alone:
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

// renew leaves all connections behind: later requests open others. Those in
// flight may end, then the old connections are closed. To cancel a request is not
// enough where connections are shared. One that is half-open would be used again;
// and Consul goes on with the query that was cancelled, so that a stream is taken
// until its wait is over, and the requests after it hang.
func (c *connections) renew() {
	c.mu.Lock()
	g := c.current
	g.left = true
	c.current = c.newGeneration()
	c.mu.Unlock()
	c.sweep(g)
}

// sweep closes the connections of g if nobody needs them any more.
func (c *connections) sweep(g *generation) {
	c.mu.Lock()
	var unused []*generationConn
	if g.left && g.requests == 0 {
		for conn := range g.open {
			unused = append(unused, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range unused {
		conn.Close()
	}
}

func (c *connections) newGeneration() *generation {
	g := &generation{open: make(map[*generationConn]struct{})}
	g.transport = c.transport(func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := c.dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		opened := &generationConn{Conn: conn, connections: c, generation: g}
		c.mu.Lock()
		g.open[opened] = struct{}{}
		c.mu.Unlock()
		c.sweep(g) // it may be too late
		return opened, nil
	})
	return g
}

// generationConn is a connection of a generation until it is closed.
type generationConn struct {
	net.Conn
	connections *connections
	generation  *generation
}

func (c *generationConn) Close() error {
	c.connections.mu.Lock()
	delete(c.generation.open, c)
	c.connections.mu.Unlock()
	return c.Conn.Close()
}
