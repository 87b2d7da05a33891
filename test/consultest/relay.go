package consultest

import (
	"errors"
	"io"
	"net"
	"sluice/test/verify"
	"sync"
	"sync/atomic"
	"testing"
)

// Relay forwards TCP connections to an address, and can fail like a network. Its methods may
// be called concurrently.
type Relay struct {
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	target string
	mode   relayMode
	conns  map[*relayed]bool
}

type relayMode uint8

const (
	relayForwards relayMode = iota
	relayHangs
	relayRefuses
	relayClosed
)

// relayed is one connection and its other side.
type relayed struct {
	client, server net.Conn
	dead           atomic.Bool // sent data is lost
}

func (c *relayed) close() {
	c.client.Close()
	c.server.Close()
}

// StartRelay forwards to target until t ends.
func StartRelay(t testing.TB, target string) *Relay {
	t.Helper()
	r, err := NewRelay(target)
	verify.Require(t, err == nil, "start a relay: %v", err)
	t.Cleanup(func() { r.Close() })
	return r
}

// NewRelay forwards to target, a "host:port", until Close.
func NewRelay(target string) (*Relay, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Relay{target: target, listener: listener, conns: make(map[*relayed]bool)}
	r.running.Go(r.accept)
	return r, nil
}

// Address returns the "host:port" to connect to.
func (r *Relay) Address() string { return r.listener.Addr().String() }

// URL returns the base URL of an HTTP server behind the relay.
func (r *Relay) URL() string { return "http://" + r.Address() }

// Hang drops the data of connections that are open now or are opened before Heal. They stay
// half-open.
func (r *Relay) Hang() { r.set(relayHangs) }

// Cut resets the connections that are open now or are opened before Heal.
func (r *Relay) Cut() { r.set(relayRefuses) }

// Heal forwards new connections again.
func (r *Relay) Heal() { r.set(relayForwards) }

// Redirect forwards to another target from now on. It resets the connections that are open.
func (r *Relay) Redirect(target string) {
	r.mu.Lock()
	r.target = target
	r.mu.Unlock()
	r.Cut()
	r.Heal()
}

// Close ends all connections and the relay.
func (r *Relay) Close() error {
	err := r.listener.Close()
	r.set(relayClosed)
	r.running.Wait()
	return err
}

func (r *Relay) set(mode relayMode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mode = mode
	for c := range r.conns {
		switch mode {
		case relayHangs:
			c.dead.Store(true)
		case relayRefuses, relayClosed:
			c.close()
		}
	}
}

func (r *Relay) accept() {
	for {
		client, err := r.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			r.running.Go(func() { r.serve(client) })
		}
	}
}

// serve forwards one connection in both directions until one side closes it.
func (r *Relay) serve(client net.Conn) {
	r.mu.Lock()
	target := r.target
	r.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil {
		client.Close()
		return
	}
	c := &relayed{client: client, server: server}
	defer c.close()
	r.mu.Lock()
	if r.mode == relayRefuses || r.mode == relayClosed || r.target != target {
		r.mu.Unlock()
		return
	}
	c.dead.Store(r.mode == relayHangs)
	r.conns[c] = true
	r.mu.Unlock()

	var back sync.WaitGroup
	back.Go(func() { c.forward(client, server) })
	c.forward(server, client)
	back.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}

// forward copies until to or from is closed, and then closes both. It drops data of a dead
// connection, and its end while the other side is open.
func (c *relayed) forward(to, from net.Conn) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !c.dead.Load() {
			if _, werr := to.Write(buffer[:n]); werr != nil {
				err = werr
			}
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) || !c.dead.Load() || from == c.client {
			c.close()
		}
		return
	}
}
