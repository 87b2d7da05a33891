package healthcheck

import (
	"io"
	"sync"
)

// kept holds one idle connection for each address. It is safe for concurrent
// use. A nil kept keeps nothing.
type kept[C io.Closer] struct {
	mu     sync.Mutex // guards the fields below
	idle   map[string]C
	closed bool
}

func newKept[C io.Closer](enabled bool) *kept[C] {
	if !enabled {
		return nil
	}
	return &kept[C]{idle: make(map[string]C)}
}

// take returns the connection to address, which is the caller's from then on.
func (k *kept[C]) take(address string) (connection C, ok bool) {
	if k == nil {
		return connection, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	connection, ok = k.idle[address]
	delete(k.idle, address)
	return connection, ok
}

// put keeps a connection, or closes it if there is one already.
func (k *kept[C]) put(address string, connection C) {
	if k != nil && k.store(address, connection) {
		return
	}
	connection.Close()
}

func (k *kept[C]) store(address string, connection C) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, taken := k.idle[address]; taken || k.closed {
		return false
	}
	k.idle[address] = connection
	return true
}

// forget closes the connection to address.
func (k *kept[C]) forget(address string) {
	if connection, ok := k.take(address); ok {
		connection.Close()
	}
}

// close closes all connections, and those that are put later.
func (k *kept[C]) close() {
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
