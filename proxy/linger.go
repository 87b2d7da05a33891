package proxy

import (
	"errors"
	"net"
	"os"
	"time"
)

// Closing a connection while bytes of the client are unread, or still come,
// makes the system reset it, and the client's may then throw away the answer
// that its program has not read yet. So first only the sending side is closed,
// and what the client sends is read and dropped (RFC 9112, section 9.6): for
// long enough that the answer has arrived, within bounds for those who abuse it.
const (
	lingerTimeout = 2 * time.Second
	// lingerBytes is more than is on its way from a fast and distant client when
	// the answer reaches it.
	lingerBytes       = 4 << 20
	lingerConnections = 1000 // at a time; beyond, a connection is closed at once
	lingerBufferBytes = 16 << 10
)

var lingerBuffers = bufferPool(lingerBufferBytes)

// sendsOn reports whether more than the last request has come from the client,
// or may come because the client did not know that it was the last.
func (c *clientConn) sendsOn() bool {
	x := c.exchange
	switch {
	case x == nil || x.headLength == 0: // the client has ended the connection
		return false
	case x.start+x.headLength+x.bodyLength < x.end || len(x.upload.behind) > 0:
		return true
	case !x.head.Persistent():
		return false
	}
	nothing := true
	err := c.raw.Control(func(fd uintptr) { nothing = quiet(fd) })
	return err == nil && !nothing
}

// lingerForAnswer closes the sending side and reads on for a while.
func (c *clientConn) lingerForAnswer() {
	lingering := &c.server.lingering
	defer lingering.Add(-1)
	if lingering.Add(1) > lingerConnections || c.conn.CloseWrite() != nil {
		return
	}
	c.arm(c.server.sweeper, lingerTimeout)
	b := lingerBuffers.Get().(*buffer)
	defer lingerBuffers.Put(b)
	for left := lingerBytes; left > 0; {
		n, err := c.conn.Read(b.bytes)
		left -= n
		if err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || c.expired(c.server.sweeper)) {
			return
		}
	}
}

// refuseConn tells a client that it is one too many, if that can be done
// without waiting. What has come of its request is read before.
func (s *Server) refuseConn(conn *net.TCPConn) {
	answer, _ := appendAnswer(nil, refusalTooManyConnections, "", false, false, false)
	b := lingerBuffers.Get().(*buffer)
	defer lingerBuffers.Put(b)
	if raw, err := conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			receive(fd, b.bytes)
			send(fd, answer)
		})
	}
	conn.Close()
}
