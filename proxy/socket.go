package proxy

import (
	"errors"
	"io"
	"syscall"
)

// Reading and writing sockets through syscall.RawConn
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
//     (see upstreamConn.step); on a new connection it reads once, since a peer may
//     send first;
//   - on the client side, f serves whole requests, so that one call of RawConn.Read
//     serves many requests (see clientConn.readable).
//
// A short read proves that the socket is empty, and later bytes are a new edge. The
// exception is a FIN together with the last bytes: the connection is read again
// after idleSetDelay.

// errWouldBlock is EAGAIN.
var errWouldBlock = errors.New("socket would block")

// errClosedEarly means that the other side closed before the end of a message.
var errClosedEarly = io.ErrUnexpectedEOF

func socketError(errno syscall.Errno) error {
	if errno == syscall.EAGAIN {
		return errWouldBlock
	}
	return errno
}
