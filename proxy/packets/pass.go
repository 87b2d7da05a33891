package packets

import (
	"errors"
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// keepOwn passes the packets of the old process's connections to it, and returns the number of the
// others, which are the first of ms then. A message keeps its buffers, as quic-go knows them by
// their places.
func (s *Socket) keepOwn(ms []ipv4.Message, older *net.UnixConn) (kept int) {
	unsent := len(s.unsent)
	for i := range ms {
		m := &ms[i]
		if s.ids.isOlder(destination(m.Buffers[0][:m.N])) {
			before := len(s.unsent)
			if s.unsent = appendMessage(s.unsent, m); len(s.unsent) == before {
				s.notPassed.Add(1)
			}
			continue
		}
		if to := &ms[kept]; to != m {
			to.N, to.NN = copy(to.Buffers[0], m.Buffers[0][:m.N]), copy(to.OOB, m.OOB[:m.NN])
			to.Addr, to.Flags = m.Addr, m.Flags
		}
		kept++
	}
	if len(s.unsent) > 0 {
		s.send(older, unsent)
	}
	return kept
}

// send sends the messages in s.unsent, of which the first is the rest of one, with that length. It
// does not wait: what does not fit into the kernel's queue is dropped, and QUIC sends it again. A
// message that was sent in part stays.
func (s *Socket) send(older *net.UnixConn, rest int) {
	n, err := write(older, s.unsent)
	if err != nil { // the old process has ended, or has closed the socket
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.older == older {
			s.endOlder()
		}
		n = 0
	}
	end := rest // of the messages that were sent, at least in part
	for end < n {
		end += messageLen(s.unsent[end:])
		s.passed.Add(1)
	}
	for at := end; at < len(s.unsent); at += messageLen(s.unsent[at:]) {
		s.notPassed.Add(1)
	}
	s.unsent = s.unsent[:copy(s.unsent, s.unsent[n:end])]
	if err != nil {
		s.unsent = nil
	}
}

// write writes what fits into the queue of the kernel.
func write(pair *net.UnixConn, b []byte) (n int, err error) {
	raw, err := pair.SyscallConn()
	if err != nil {
		return 0, err
	}
	wrote := raw.Write(func(fd uintptr) bool {
		for {
			if n, err = unix.Write(int(fd), b); err != unix.EINTR {
				return true
			}
		}
	})
	if err = errors.Join(wrote, err); errors.Is(err, unix.EAGAIN) {
		err = nil
	}
	return max(n, 0), err
}
