package healthcheck

import (
	"io"
	"sync"

	"sluice/discovery"
)

// idleConnections stores one idle connection of a [Probe] per address for reuse by who it was made
// for. It is safe for concurrent use. A nil one stores nothing.
type idleConnections[C io.Closer] struct {
	mu     sync.Mutex // guards the fields below
	idle   map[string]idleConnection[C]
	closed bool
}

type idleConnection[C io.Closer] struct {
	connection C
	who        discovery.Member // a mesh gateway passes connections to several by one address
}

func newIdleConnections[C io.Closer](enabled bool) *idleConnections[C] {
	if !enabled {
		return nil
	}
	return &idleConnections[C]{idle: make(map[string]idleConnection[C])}
}

// take removes and returns the connection to a target. It closes one to somebody else at the same
// address.
func (k *idleConnections[C]) take(t *Target) (connection C, ok bool) {
	idle, ok := k.remove(t.Address)
	if ok && idle.who != t.Instance.Member() {
		idle.connection.Close()
		return connection, false
	}
	return idle.connection, ok
}

func (k *idleConnections[C]) remove(address string) (idle idleConnection[C], ok bool) {
	if k == nil {
		return idle, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	idle, ok = k.idle[address]
	delete(k.idle, address)
	return idle, ok
}

// put stores a connection, or closes it if there is one already.
func (k *idleConnections[C]) put(t *Target, connection C) {
	if k != nil && k.store(t.Address, idleConnection[C]{connection, t.Instance.Member()}) {
		return
	}
	connection.Close()
}

func (k *idleConnections[C]) store(address string, idle idleConnection[C]) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, taken := k.idle[address]; taken || k.closed {
		return false
	}
	k.idle[address] = idle
	return true
}

// Forget closes the connection to an address.
func (k *idleConnections[C]) Forget(address string) {
	if idle, ok := k.remove(address); ok {
		idle.connection.Close()
	}
}

// Close closes all connections, and connections that are put later.
func (k *idleConnections[C]) Close() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, idle := range k.idle {
		idle.connection.Close()
	}
	clear(k.idle)
	k.closed = true
}
