package proxy

import (
	"context"
	"net"
	"time"

	"sluice/observe/panics"
)

// A connection is an open connection of a client, of any protocol. Its methods may be called at any
// time, also after its end, and wait for nothing.
type connection interface {
	at() *listener // that has accepted it
	// drain ends the connection once it is idle, at the latest at a coarse time.
	drain(until int64)
	// interrupt ends what is in progress on the connection, with an answer where one can be
	// given.
	interrupt()
	// abort closes the connection at once.
	abort()
}

// open adds a connection, and calls begin, which serves it in its own goroutine. That calls closed
// in the end. It fails if Shutdown has closed all others.
func (s *Server) open(c connection, begin func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return net.ErrClosed
	}
	s.conns[c] = struct{}{}
	begin()
	return nil
}

// closed removes a connection.
func (s *Server) closed(c connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	delete(s.certified, c)
	s.signalDrainedLocked()
}

// left removes a listener that is served no more.
func (s *Server) left(l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	s.signalDrainedLocked()
}

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
		c.drain(s.idleUntil.Load())
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
			c.abort()
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
	s.eachAcceptedOn(l, func(c connection) {
		c.at().idleUntil.Store(until)
		c.drain(until)
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
			s.eachAcceptedOn(l, func(c connection) {
				c.at().cut.Store(true)
				c.interrupt()
			})
		}
	})
	return true
}

// eachAcceptedOn calls do for the open connections that were accepted on l.
func (s *Server) eachAcceptedOn(l net.Listener, do func(connection)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.at().Listener == l {
			do(c)
		}
	}
}
