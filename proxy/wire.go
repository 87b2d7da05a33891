package proxy

import (
	"net"
	"syscall"
)

// A socketConn is a connection by TCP or through a unix socket.
type socketConn interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
}

// resetOnClose makes Close reset a TCP connection, so that the other side does not take the end
// for that of the bytes. A unix socket has nothing of this kind.
func resetOnClose(conn socketConn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // the connection may be closed already
	}
}

// A wire is a connection without or with TLS.
type wire struct {
	conn socketConn
	raw  syscall.RawConn
	tls  *tlsConn // nil: no TLS
}

// wake must be called at the start of each function call by RawConn.Read, before
// receive: the socket may have become readable.
func (w *wire) wake() {
	if w.tls != nil {
		w.tls.socket.drained = false
	}
}

// receive is the function receive. With TLS, only errWouldBlock means that no bytes
// are left; a short read does not. The end of a connection that was cut is an error.
func (w *wire) receive(fd uintptr, b []byte) (int, error) {
	if w.tls != nil {
		return w.tls.receive(fd, b)
	}
	return receive(fd, b)
}

// write writes a part of b. After an error, the next call must begin with the
// unwritten bytes of b.
func (w *wire) write(b []byte) (int, error) {
	if w.tls != nil {
		return w.tls.write(b)
	}
	return w.conn.Write(b)
}

// closeWrite closes the sending side.
func (w *wire) closeWrite() error {
	if w.tls != nil {
		w.tls.closeNotify()
	}
	return w.conn.CloseWrite()
}
