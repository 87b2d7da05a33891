package meshtest

import (
	"io"
	"log"
	"net"
	"sync"
	"testing"
)

// silent is for servers whose clients leave as they like.
var silent = log.New(io.Discard, "", 0)

// connections are open connections of a server.
type connections struct {
	// mu guards the fields below.
	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
}

func (c *connections) add(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if c.open == nil {
		c.open = make(map[net.Conn]bool)
	}
	c.open[conn] = true
	return true
}

func (c *connections) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
}

// close closes all connections, also those that add is called with later.
func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.open {
		conn.Close()
	}
}

// accept calls serve with each connection of l until t ends, and closes the connection after it.
func accept(t testing.TB, l net.Listener, serve func(net.Conn)) {
	var running sync.WaitGroup
	conns := new(connections)
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				if conns.add(c) {
					defer conns.remove(c)
					serve(c)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.close()
		running.Wait()
	})
}
