package client

import (
	"io"
	"net"
	"sync"
	"testing"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// relay forwards connections to a server, until it is cut.
type relay struct {
	listener net.Listener

	mu     sync.Mutex
	broken bool
	open   []net.Conn
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := consultest.Listen()
	verify.NoError(t, err)
	r := &relay{listener: l}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil || !r.add(client, server) {
				client.Close()
				if err == nil {
					server.Close()
				}
				continue
			}
			for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
				running.Go(func() {
					io.Copy(pair[0], pair[1])
					pair[0].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.cut()
		running.Wait()
	})
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

// add reports whether the connections may stay open.
func (r *relay) add(pair ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.broken {
		r.open = append(r.open, pair...)
	}
	return !r.broken
}

// cut closes all connections, and new ones at once, until mend.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = true
	for _, c := range r.open {
		c.Close()
	}
	r.open = nil
}

func (r *relay) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = false
}
