// Package socket reads and writes the sockets of clients and peers. It knows no protocol above
// TLS. One request pays for few system calls, no timer, no allocation, and no memory while it
// waits.
//
//	bytes    Receive and Send are the system calls, a Wire is them with or without TLS.
//	waits    A Sweeper ends waits, by the deadlines of a SweepEntry for each connection.
//	         A Pace times out a side that takes no bytes, and bears one that is slow.
//	memory   Buffers are borrowed when there are bytes, and given back before a wait. A
//	         ByteQueue has bytes that wait for their reader.
//	idle     An IdleSet waits for connections that have no goroutine.
//	starts   AwaitPrelude reads the start of a connection and leaves it in the socket. Handshakes
//	         bounds the TLS handshakes of clients.
//	bodies   Splice and Tunnel move bytes from one socket to another, within the kernel where
//	         both are without TLS.
//
// # Waits
//
// Reads and writes go through syscall.RawConn.
//
// net.Conn.Read tries to read before it parks the goroutine in the poller. A proxy
// reads the next request right after it has sent a response, and the response right
// after it has sent a request. No bytes have arrived then, so the first read is a
// wasted system call on each side of each request.
//
// RawConn.Read(f) calls f each time the socket may have become readable, until f
// returns true, so f decides when to park. But RawConn.Read first discards readiness
// that the poller reported before (the poller is edge-triggered; see
// poll_runtime_pollReset in the runtime). So f may park without a read only if no
// byte can have arrived since RawConn.Read was called:
//
//   - on the upstream side, f finds the socket quiet, writes the request and parks
//     (see HTTP1Conn.step of package upstream); on a new connection it reads once, since a peer may
//     send first;
//   - on the client side, f serves whole requests, so that one call of RawConn.Read
//     serves many requests (see clientConn.readable of package proxy).
//
// A short read proves that the socket is empty, and later bytes are a new edge. The
// exception is a FIN together with the last bytes: the connection is read again
// after a moment without a request.
package socket

import (
	"errors"
	"io"
	"syscall"
)

// ErrWouldBlock is EAGAIN.
var ErrWouldBlock = errors.New("socket would block")

// ErrClosedEarly means that the other side closed before the end of a message.
var ErrClosedEarly = io.ErrUnexpectedEOF

func socketError(errno syscall.Errno) error {
	if errno == syscall.EAGAIN {
		return ErrWouldBlock
	}
	return errno
}
