package socket

import (
	"io"
	"net"
	"syscall"
)

// A Conn is a connection by TCP or through a unix socket.
type Conn interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
}

// ResetOnClose makes Close reset a TCP connection, so that the other side does not take its end
// for the end of the bytes. A unix socket has nothing of this kind.
func ResetOnClose(conn Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // the connection may be closed already
	}
}

// A Wire is a connection without or with TLS.
type Wire struct {
	Conn Conn
	Raw  syscall.RawConn
	TLS  *TLSConn // nil: no TLS
}

// Wake must be called at the start of each function call by RawConn.Read, before
// receive: the socket may have become readable.
func (w *Wire) Wake() {
	if w.TLS != nil {
		w.TLS.socket.drained = false
	}
}

// Receive is the function receive. With TLS, only ErrWouldBlock means that no bytes
// are left; a short read does not. The end of a connection that was cut is an error.
func (w *Wire) Receive(fd uintptr, b []byte) (int, error) {
	if w.TLS != nil {
		return w.TLS.receive(fd, b)
	}
	return Receive(fd, b)
}

// Read waits for bytes and reads them into b.
func (w *Wire) Read(b []byte) (n int, err error) {
	if w.TLS == nil {
		return w.Conn.Read(b)
	}
	waitErr := w.Raw.Read(func(fd uintptr) bool {
		w.Wake()
		n, err = w.Receive(fd, b)
		return err != ErrWouldBlock
	})
	if waitErr != nil {
		return 0, waitErr
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// WakeReader ends a wait for bytes, whose goroutine then looks why. It is harmless if there is
// none.
func (w *Wire) WakeReader() { w.Conn.SetReadDeadline(ALongTimeAgo) }

// Quiet is the function Quiet. With TLS, a peer may have sent records without data, such as session
// tickets.
func (w *Wire) Quiet(fd uintptr) bool {
	if w.TLS == nil {
		return Quiet(fd)
	}
	var b [1]byte
	w.Wake()
	_, err := w.Receive(fd, b[:])
	return err == ErrWouldBlock
}

// write writes a part of b. After an error, the next call must begin with the
// unwritten bytes of b.
func (w *Wire) write(b []byte) (int, error) {
	if w.TLS != nil {
		return w.TLS.write(b)
	}
	return w.Conn.Write(b)
}

// CloseWrite closes the sending side.
func (w *Wire) CloseWrite() error {
	if w.TLS != nil {
		w.TLS.CloseNotify()
	}
	return w.Conn.CloseWrite()
}
