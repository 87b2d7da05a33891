package proxy

import (
	"errors"
	"io"
	"syscall"
)

// Reading and writing sockets through syscall.RawConn
//
// net.Conn.Read tries to read before it parks the goroutine in the poller. A
// proxy asks for the next request right after it sent a response, and for the
// response right after it sent a request: the bytes cannot be there yet, and
// that first read is a wasted system call on each side of each request.
//
// RawConn.Read(f) calls f again each time the socket may have become readable,
// until f returns true, so that f decides when to park. But beware: entering
// RawConn.Read forgets readiness that the poller reported before (the poller is
// edge-triggered; see poll_runtime_pollReset in the runtime). So f may park
// without having tried to read only when no byte can have arrived since
// RawConn.Read was entered:
//
//   - to the upstream, f finds the socket quiet, writes the request and then
//     parks (see upstreamConn.step); on a new connection it tries to read once,
//     as a peer may speak as soon as it accepts;
//   - to the client, the whole work of a request is done inside f, so that
//     RawConn.Read is entered once for many requests (see clientConn.readable).
//
// A short read proves that the socket was drained, and anything that comes
// later is a new edge. The one exception is a FIN that came together with the
// last bytes: the connection is looked at again a little later (see
// clientConn.idle).

// errWouldBlock: the socket has no bytes, or no room, at the moment.
var errWouldBlock = errors.New("socket would block")

// errClosedEarly: the other side closed where bytes were expected.
var errClosedEarly = io.ErrUnexpectedEOF

func socketError(errno syscall.Errno) error {
	if errno == syscall.EAGAIN {
		return errWouldBlock
	}
	return errno
}
