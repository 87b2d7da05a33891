package healthcheck

import (
	"io"
	"sync"
)

// idleConnections stores one idle connection per address for reuse. It is safe for
// concurrent use. A nil one stores nothing.
type idleConnections[C io.Closer] struct {
	mu     sync.Mutex // guards the fields below
	idle   map[string]C
	closed bool
}

func newIdleConnections[C io.Closer](enabled bool) *idleConnections[C] {
	if !enabled {
		return nil
	}
	return &idleConnections[C]{idle: make(map[string]C)}
}

// take removes and returns the connection to address.
func (k *idleConnections[C]) take(address string) (connection C, ok bool) {
	if k == nil {
		return connection, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	connection, ok = k.idle[address]
	delete(k.idle, address)
	return connection, ok
}

// put stores a connection, or closes it if there is one already.
func (k *idleConnections[C]) put(address string, connection C) {
	if k != nil && k.store(address, connection) {
		return
	}
	connection.Close()
}

func (k *idleConnections[C]) store(address string, connection C) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, taken := k.idle[address]; taken || k.closed {
		return false
	}
	k.idle[address] = connection
	return true
}

func (k *idleConnections[C]) forget(address string) {
	if connection, ok := k.take(address); ok {
		connection.Close()
	}
}

// close closes all connections, and connections that are put later.
func (k *idleConnections[C]) close() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, connection := range k.idle {
		connection.Close()
	}
	clear(k.idle)
	k.closed = true
}
