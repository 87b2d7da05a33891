package socket

import (
	"os"
	"sync"
	"syscall"
)

// An IdleSet waits for events on idle client connections, with one goroutine and an
// epoll instance for all: a goroutine for each would double the memory of an idle
// connection. The function that removes a connection, after an event or a timeout,
// starts its goroutine again. Safe for concurrent use.
type IdleSet struct {
	epoll *os.File // nil: epoll is not available, and add fails
	raw   syscall.RawConn
	fd    int // of epoll, until closed

	mu sync.Mutex
	// mu guards the fields below, and watched of the connections.
	conns  []IdleConn // by descriptor
	closed bool
}

func NewIdleSet() (*IdleSet, error) {
	s := new(IdleSet)
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

// Add adds c, whose socket is raw, and reports whether it did; then the goroutine of c must end.
// Bytes that have arrived before wake c.
func (s *IdleSet) Add(c IdleConn, raw syscall.RawConn) bool {
	if s.epoll == nil {
		return false
	}
	added, w := false, c.Watch()
	raw.Control(func(fd uintptr) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			return
		}
		const oneShot = 1 << 30 // EPOLLONESHOT
		event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | oneShot, Fd: int32(fd)}
		op := syscall.EPOLL_CTL_ADD
		if w.watched {
			op = syscall.EPOLL_CTL_MOD
		}
		if syscall.EpollCtl(s.fd, op, int(fd), &event) != nil {
			return
		}
		w.watched = true
		if more := int(fd) + 1 - len(s.conns); more > 0 {
			s.conns = append(s.conns, make([]IdleConn, more)...)
		}
		s.conns[fd] = c
		added = true
	})
	return added
}

// Take removes c and reports whether c was in the set.
func (s *IdleSet) Take(c IdleConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A closed connection may have had the descriptor before.
	fd := int(c.Watch().FD)
	if fd >= len(s.conns) || s.conns[fd] != c {
		return false
	}
	s.conns[fd] = nil
	return true
}

// Len returns how many connections are in the set.
func (s *IdleSet) Len() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		if c != nil {
			n++
		}
	}
	return n
}

// Run wakes connections whose clients may have sent bytes or closed, until close.
func (s *IdleSet) Run() {
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
				return false // a later event calls the function again
			}
			for _, event := range events[:n] {
				s.wake(event.Fd)
			}
		}
	})
}

// wake starts a goroutine for the connection with this descriptor. The descriptor may
// have been reused since the event; a spurious wake is harmless.
func (s *IdleSet) wake(fd int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int(fd) >= len(s.conns) { // closed
		return
	}
	if c := s.conns[fd]; c != nil {
		s.conns[fd] = nil
		go c.Resume()
	}
}

// Close wakes all connections and ends run. Later calls of add fail.
func (s *IdleSet) Close() {
	s.mu.Lock()
	s.closed = true
	for _, c := range s.conns {
		if c != nil {
			go c.Resume()
		}
	}
	s.conns = nil
	s.mu.Unlock()
	if s.epoll != nil {
		s.epoll.Close()
	}
}
