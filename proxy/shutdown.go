package proxy

import (
	"context"
	"net"
	"time"

	"sluice/observe/panics"
	"sluice/proxy/socket"
)

// Shutdown stops accepting, waits for the requests in flight and returns when all
// listeners and connections are closed. If ctx ends first, it closes the remaining
// connections and returns ctx's error. It must be called once. It waits only a second for
// copies of requests, after all else.
//
// A client may send a request on an idle connection while it is being closed, and
// the request would be lost. So idle connections stay open for idleGrace, and a
// request in this time is answered with Connection: close.
func (s *Server) Shutdown(ctx context.Context, idleGrace time.Duration) error {
	s.mu.Lock()
	s.idleUntil.Store(s.sweeper.Exact() + int64(idleGrace))
	s.draining.Store(true)
	for l := range s.listeners {
		l.close()
	}
	s.signalDrainedLocked()
	for c := range s.conns {
		c.wire.WakeReader() // to look whether it drains
	}
	for a := range s.arrivals {
		a.boundLocked(s.idleUntil.Load())
	}
	s.idleConns.Close()
	s.mu.Unlock()

	var err error
	select {
	case <-s.drained:
	case <-ctx.Done():
		err = ctx.Err()
		s.cutting.Store(true)
		// Peers first: closing a client's connection waits for its exchange, which
		// may wait for its peer.
		s.cutPeers()
		s.mu.Lock()
		for c := range s.conns {
			if c.delimits.Load() {
				socket.ResetOnClose(c.wire.Conn)
			}
			c.wire.Conn.Close()
		}
		for c := range s.streams {
			c.abort()
		}
		for a := range s.arrivals {
			a.conn.Close()
		}
		s.mu.Unlock()
		<-s.drained
	}
	s.awaitCopies(ctx)
	s.cancel()
	close(s.stop)
	s.background.Wait()
	return err
}

// cutPeers ends all exchanges with peers.
func (s *Server) cutPeers() {
	s.cancel()
	for _, t := range s.connectors.List() {
		t.Close()
	}
}

// Drain ends the connections that were accepted on l, which must no longer be served. It treats
// requests in flight and idle connections as Shutdown does, but does not wait for them. After grace
// it ends the remaining requests, and resets the remaining streams. After the begin of Shutdown it
// does nothing.
func (s *Server) Drain(l net.Listener, idleGrace, grace time.Duration) {
	if !s.cutAfter(l, grace) {
		return
	}
	until := s.sweeper.Exact() + int64(idleGrace)
	// First: one whose header has come becomes a connection meanwhile.
	eachAcceptedOn(s, s.arrivals, l, func(a *arrival) {
		a.listener.idleUntil.Store(until)
		a.boundLocked(until)
	})
	eachAcceptedOn(s, s.conns, l, func(c *clientConn) {
		c.client.listener.idleUntil.Store(until)
		c.wire.WakeReader()
		if s.idleConns.Take(c) {
			go c.Resume()
		}
	})
}

// cutAfter cuts what remains of l after grace. It reports false, and does nothing, if Shutdown has
// begun, which waits for background.
func (s *Server) cutAfter(l net.Listener, grace time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() {
		return false
	}
	s.background.Go(func() {
		defer panics.Contain(panics.Task, nil)
		select {
		case <-s.stop:
		case <-time.After(grace):
			eachAcceptedOn(s, s.arrivals, l, func(a *arrival) { a.conn.Close() })
			eachAcceptedOn(s, s.conns, l, func(c *clientConn) {
				c.client.listener.cut.Store(true)
				c.client.Entry.Interrupt()
			})
			eachAcceptedOn(s, s.streams, l, func(c *stream) {
				c.client.listener.cut.Store(true)
				c.abort()
			})
		}
	})
	return true
}

// eachAcceptedOn calls do for those of the open connections of one kind that were accepted on l.
func eachAcceptedOn[C interface {
	comparable
	at() *listener
}](s *Server, open map[C]struct{}, l net.Listener, do func(C)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range open {
		if c.at().Listener == l {
			do(c)
		}
	}
}

// endRevoked implements certified.
func (c *clientConn) endRevoked() {
	c.client.Entry.Interrupt()
	if c.client.server.idleConns.Take(c) {
		go c.Resume()
	}
}
