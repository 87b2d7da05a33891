package packets

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/net/ipv4"
)

// longAgo is a deadline that ends a read at once.
var longAgo = time.Unix(1, 0)

// received are the bytes of passed messages that were not taken yet.
type received struct {
	bytes []byte
	start int // of the first message
}

// ReadBatch reads packets of this process's connections. It waits as long as the old process reads.
// After StandAside it reads what the new process passes.
func (s *Socket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for {
		n, err := s.read(ms, flags)
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// read is ReadBatch once: without packets and an error it must be called again.
func (s *Socket) read(ms []ipv4.Message, flags int) (int, error) {
	older, newer, waiting := s.begin()
	switch {
	case newer != nil:
		return s.readPassed(newer, ms)
	case waiting:
		return 0, s.awaitOlder(older)
	}
	n, err := s.batch.ReadBatch(ms, flags)
	aside := s.finish()
	if err != nil {
		if aside && errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
		return 0, err
	}
	if older == nil {
		return n, nil
	}
	return s.keepOwn(ms[:n], older), nil
}

// begin begins a read of the UDP socket, unless another process reads it.
func (s *Socket) begin() (older, newer *net.UnixConn, waiting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading = s.newer == nil && !s.waiting
	return s.older, s.newer, s.waiting
}

// finish ends a read of the UDP socket. If it was the last one before the new process reads, it
// tells that process.
func (s *Socket) finish() (aside bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading = false
	if s.newer == nil {
		return false
	}
	_ = s.udp.SetReadDeadline(s.deadline) // it fails if it is closed: that ends reads too
	_ = s.newer.CloseWrite()              // it fails if the new process has ended
	return true
}

// awaitOlder waits until the old process reads no more, or has ended. It writes nothing: the end of
// what it could write says so.
func (s *Socket) awaitOlder(older *net.UnixConn) error {
	_, err := older.Read(make([]byte, 1))
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = false
	return nil
}

// standAside makes the new process the one that reads the UDP socket.
func (s *Socket) standAside(newer *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		end(newer)
		return
	}
	s.endOlder() // that process has ended
	s.newer = newer
	_ = newer.SetReadDeadline(s.deadline) // it fails if it is closed: that ends reads too
	if s.reading {
		_ = s.udp.SetReadDeadline(longAgo) // then finish tells the new process
	} else {
		_ = newer.CloseWrite()
	}
}

// readPassed reads what the new process passes. When that has ended, or has closed the socket,
// nobody else reads the UDP socket, in which packets of this process's connections would pile up.
// So this process reads it again.
func (s *Socket) readPassed(newer *net.UnixConn, ms []ipv4.Message) (int, error) {
	q := &s.received
	if q.bytes == nil {
		q.bytes = make([]byte, 0, sizeLen+1<<16) // the longest message
	}
	n, err := q.take(ms)
	if n > 0 {
		return n, nil
	}
	if err == nil {
		q.bytes, q.start = q.bytes[:copy(q.bytes, q.bytes[q.start:])], 0
		n, err = newer.Read(q.bytes[len(q.bytes):cap(q.bytes)])
		q.bytes = q.bytes[:len(q.bytes)+n]
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, err
	}
	*q = received{}
	s.mu.Lock()
	defer s.mu.Unlock()
	end(newer)
	s.newer = nil
	return 0, nil
}

// take sets ms to the next messages, as many as are whole.
func (q *received) take(ms []ipv4.Message) (n int, err error) {
	for n < len(ms) {
		length, err := parseMessage(q.bytes[q.start:], &ms[n])
		if err != nil {
			return n, err
		}
		if length == 0 {
			break
		}
		q.start += length
		n++
	}
	return n, nil
}

// ReadMsgUDP reads one packet as ReadBatch does.
func (s *Socket) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	ms := []ipv4.Message{{Buffers: [][]byte{b}, OOB: oob}}
	if _, err = s.ReadBatch(ms, 0); err != nil {
		return 0, 0, 0, nil, err
	}
	addr, _ = ms[0].Addr.(*net.UDPAddr)
	return ms[0].N, ms[0].NN, ms[0].Flags, addr, nil
}

// ReadFrom reads one packet as ReadBatch does.
func (s *Socket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, _, _, addr, err := s.ReadMsgUDP(b, nil)
	if err != nil {
		return 0, nil, err
	}
	return n, addr, nil
}
