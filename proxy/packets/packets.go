// Package packets shares a UDP socket for QUIC between two processes, of which one replaces the
// other, so that no connection is lost.
//
// Both processes have the same socket, and both send with it. The old process reads it until the
// new one serves. Then it stops, and after that the new one begins: the kernel keeps what comes
// between. The new process passes the packets of the old one's connections to it, through a pair
// of connected sockets. Connection ids say whose a packet is.
//
// A connection whose first packet the old process has read stays there. So that process accepts
// connections as long as it has the socket: handshakes that had begun, and clients that come back
// with the connection id of a Retry (RFC 9000, section 17.2.5).
//
// Nobody passes on what was passed to it, because there are never three processes: Replace of
// package handover waits for the end of the process before this one.
package packets

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

// WantedBuffer is the size of the kernel's buffers that a Socket asks for. It is what quic-go wants
// for a fast connection.
const WantedBuffer = 7 << 20

// secretLen is the length of the secret of a socket.
const secretLen = 32

// Socket is a UDP socket that a process before this one may have had, and that a process after it
// may get. One goroutine reads it. The other methods may be called concurrently.
//
// It has the methods by which quic-go reads batches and sends several packets in one call.
type Socket struct {
	udp    *net.UDPConn
	batch  *ipv4.PacketConn
	secret [secretLen]byte // of all processes that have the socket
	ids    ids

	passed, notPassed atomic.Uint64

	// The goroutine that reads uses these fields.
	unsent   []byte // to the old process: the rest of a message that was sent in part
	received received

	mu       sync.Mutex // guards the fields below
	deadline time.Time  // of reads
	reading  bool       // the UDP socket is being read
	waiting  bool       // the old process may read the UDP socket
	closed   bool
	older    *net.UnixConn // to the process before this one; nil: none, or it has ended
	newer    *net.UnixConn // from the process after this one, which reads the UDP socket
}

// New returns the Socket of a UDP socket that no process before this one has had.
func New(udp *net.UDPConn) (*Socket, error) {
	var secret [secretLen]byte
	_, _ = rand.Read(secret[:]) // it never fails
	return newSocket(udp, secret, 0)
}

func newSocket(udp *net.UDPConn, secret [secretLen]byte, generation byte) (*Socket, error) {
	s := &Socket{udp: udp, batch: ipv4.NewPacketConn(udp), secret: secret}
	key := s.Secret("connection ids")
	var err error
	if s.ids, err = newIDs(key[:], generation); err != nil {
		return nil, fmt.Errorf("connection ids: %w", err)
	}
	enlarge(udp)
	return s, nil
}

// Secret returns a secret for a purpose. All processes that have the socket get the same one.
func (s *Socket) Secret(purpose string) [32]byte {
	code := hmac.New(sha256.New, s.secret[:])
	code.Write([]byte(purpose))
	return [32]byte(code.Sum(nil))
}

// NewID returns a new connection id. All connections of the socket must have such ones.
func (s *Socket) NewID() [IDLen]byte { return s.ids.new() }

// Counts are what has happened to the packets of a socket.
type Counts struct {
	Passed       uint64 // to the old process
	NotPassed    uint64 // of those: the queue was full, or the old process has ended
	NotReceived  uint64 // dropped by the kernel since the socket exists, as nobody read in time
	ReceiveBytes int    // the size of the kernel's buffer; 0: unknown
}

// HasSmallBuffer reports whether the kernel's buffer is smaller than a Socket asks for, of which
// the kernel makes twice as much, for its own structures.
func (c Counts) HasSmallBuffer() bool { return c.ReceiveBytes > 0 && c.ReceiveBytes < 2*WantedBuffer }

// Counts returns the counts of this process, except for those of the kernel.
func (s *Socket) Counts() Counts {
	c := Counts{Passed: s.passed.Load(), NotPassed: s.notPassed.Load()}
	if raw, err := s.udp.SyscallConn(); err == nil {
		c.NotReceived, c.ReceiveBytes = kernelCounts(raw)
	}
	return c
}

// IsAside reports whether the process after this one reads the socket.
func (s *Socket) IsAside() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newer != nil
}

// Close closes the socket in this process. An old process reads it again.
func (s *Socket) Close() error {
	s.Detach()
	return s.udp.Close()
}

// Detach ends what this process shares, and returns the UDP socket, which the caller closes. An old
// process reads it again.
func (s *Socket) Detach() *net.UDPConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.endOlder()
	end(s.newer)
	s.newer = nil
	return s.udp
}

// endOlder ends the connection to the old process. The caller holds mu.
func (s *Socket) endOlder() {
	end(s.older)
	s.older, s.waiting = nil, false
}

// end closes an end of a pair, if there is one. The other process learns of it although others may
// have duplicates of the descriptor.
func end(pair *net.UnixConn) {
	if pair != nil {
		// The other end may have ended.
		_ = errors.Join(pair.CloseRead(), pair.CloseWrite(), pair.Close())
	}
}

// SetReadDeadline sets the deadline of reads, wherever they wait.
func (s *Socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	for _, pair := range []*net.UnixConn{s.older, s.newer} {
		if pair != nil {
			// It fails if it is closed: that ends a read too.
			_ = pair.SetReadDeadline(t)
		}
	}
	if s.newer != nil && s.reading {
		return nil // StandAside has ended the read
	}
	return s.udp.SetReadDeadline(t)
}

func (s *Socket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.udp.SetWriteDeadline(t))
}

func (s *Socket) SetWriteDeadline(t time.Time) error           { return s.udp.SetWriteDeadline(t) }
func (s *Socket) LocalAddr() net.Addr                          { return s.udp.LocalAddr() }
func (s *Socket) SyscallConn() (syscall.RawConn, error)        { return s.udp.SyscallConn() }
func (s *Socket) SetReadBuffer(size int) error                 { return s.udp.SetReadBuffer(size) }
func (s *Socket) SetWriteBuffer(size int) error                { return s.udp.SetWriteBuffer(size) }
func (s *Socket) WriteTo(b []byte, addr net.Addr) (int, error) { return s.udp.WriteTo(b, addr) }
func (s *Socket) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	return s.udp.WriteMsgUDP(b, oob, addr)
}
