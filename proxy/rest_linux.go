package proxy

import (
	"os"
	"sync"
	"syscall"
)

// A restingSet watches connections of clients between requests, one goroutine
// for all of them: a goroutine each, with its stack, would be half of what an
// idle connection costs. A connection in the set has no goroutine. Whoever takes
// it out, because the client may have sent something or its time is over, starts
// one. Safe for concurrent use.
type restingSet struct {
	epoll *os.File // nil: nothing can be watched, and no connection is let in
	raw   syscall.RawConn
	fd    int // of epoll, until closed

	mu sync.Mutex
	// mu guards the fields below, and those of rest.
	conns  map[int32]*clientConn // by descriptor
	closed bool
}

// rest is what a restingSet knows of a connection.
type rest struct {
	fd      int32 // the key
	watched bool  // the system knows fd, until that is closed
}

func newRestingSet() (*restingSet, error) {
	s := &restingSet{conns: make(map[int32]*clientConn)}
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return s, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // for os.File to wait for it
		syscall.Close(fd)
		return s, os.NewSyscallError("fcntl", err)
	}
	epoll := os.NewFile(uintptr(fd), "epoll")
	raw, err := epoll.SyscallConn()
	if err != nil {
		epoll.Close()
		return s, err
	}
	s.epoll, s.raw, s.fd = epoll, raw, fd
	return s, nil
}

// add lets c in, whose goroutine ends now, and reports whether it did. Bytes
// that have arrived before are not missed.
func (s *restingSet) add(c *clientConn) bool {
	if s.epoll == nil {
		return false
	}
	added := false
	c.raw.Control(func(fd uintptr) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			return
		}
		const oneShot = 1 << 30 // EPOLLONESHOT
		event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | oneShot, Fd: int32(fd)}
		op := syscall.EPOLL_CTL_ADD
		if c.rest.watched {
			op = syscall.EPOLL_CTL_MOD
		}
		if syscall.EpollCtl(s.fd, op, int(fd), &event) != nil {
			return
		}
		c.rest = rest{fd: int32(fd), watched: true}
		s.conns[int32(fd)] = c
		added = true
	})
	return added
}

// take takes c out and reports whether it was in.
func (s *restingSet) take(c *clientConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns[c.rest.fd] != c {
		return false
	}
	delete(s.conns, c.rest.fd)
	return true
}

// run lets connections go on whose clients may have sent something, or closed,
// until the set is closed.
func (s *restingSet) run() {
	if s.epoll == nil {
		return
	}
	var events [128]syscall.EpollEvent
	s.raw.Read(func(fd uintptr) bool {
		for {
			n, err := syscall.EpollWait(int(fd), events[:], 0)
			if err == syscall.EINTR {
				continue
			}
			if n <= 0 {
				return false // anything that comes now calls again
			}
			for _, event := range events[:n] {
				s.wake(event.Fd)
			}
		}
	})
}

// wake lets the connection of a descriptor go on. It may be another one by now,
// which finds out that it was woken in error.
func (s *restingSet) wake(fd int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.conns[fd]; c != nil {
		delete(s.conns, fd)
		go c.goOn()
	}
}

// close lets all connections go on, and none in any more. run ends.
func (s *restingSet) close() {
	s.mu.Lock()
	s.closed = true
	for fd, c := range s.conns {
		delete(s.conns, fd)
		go c.goOn()
	}
	s.mu.Unlock()
	if s.epoll != nil {
		s.epoll.Close()
	}
}
