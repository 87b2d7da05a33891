package proxy

import (
	"errors"
	"os"
	"syscall"
	"time"

	"sluice/proxy/socket"
)

// Closing a connection that has unread bytes, or receives more, makes the kernel
// reset it, and the client may lose the response. Therefore sluice first closes its
// sending side, and reads and discards what the client sends (RFC 9112, section
// 9.6), up to these limits.
const (
	lingerTimeout = 2 * time.Second
	// lingerBytes exceeds the bytes in flight from a fast and distant client.
	lingerBytes       = 4 << 20
	lingerConnections = 1000 // at a time; others are closed at once
)

// sendsOn reports whether bytes follow the last request, or may follow it because
// the client expects to reuse the connection. x may be nil: there is none.
func (x *http1Exchange) sendsOn(raw syscall.RawConn) bool {
	switch {
	case x == nil || x.request.headLength == 0: // the client has closed the connection
		return false
	case x.request.start+x.request.headLength+x.request.bodyLength < x.request.end || len(x.surplus) > 0:
		return true
	case !x.request.head.Persistent():
		return false
	}
	nothing := true
	err := raw.Control(func(fd uintptr) { nothing = socket.Quiet(fd) })
	return err == nil && !nothing
}

// linger closes the sending side and discards what the client sends, within
// the limits.
func (s *Server) linger(w socket.Wire, e *socket.SweepEntry) {
	defer s.lingering.Add(-1)
	if s.lingering.Add(1) > lingerConnections || w.CloseWrite() != nil {
		return
	}
	e.Arm(s.sweeper, lingerTimeout)
	var (
		reader socket.BufferedReader
		b      socket.Buffers
	)
	defer b.GiveBack()
	for left := lingerBytes; left > 0; {
		n, err := reader.Read(socket.Wire{Raw: w.Raw}, &b, 0, socket.RelayBufferBytes)
		left -= n
		if err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || e.Expired(s.sweeper)) {
			return
		}
	}
}
