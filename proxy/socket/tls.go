package socket

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"sluice/certificates"
	"sluice/route/places"
)

// TLS on the sockets of this package
//
// crypto/tls reads from and writes to a tlsSocket. After the handshake the tlsSocket
// never waits: a read without bytes returns an error that crypto/tls treats as
// temporary, and the records of a write are collected and then sent like plain
// bytes, with the same deadlines and in one call.

// A TLSConn is a connection with TLS, to a client or to a peer. One goroutine at a
// time may read, and one may write.
type TLSConn struct {
	*tls.Conn
	socket *tlsSocket
	unsent []byte  // records of write that did not fit the socket buffer
	buffer *Buffer // the memory of unsent
	sealed int     // the number of plain bytes in unsent
}

// SealBytes is the number of bytes to encrypt at a time. With the overhead of the
// records they fit a buffer.
const SealBytes = 60 << 10

var SealBuffers = BufferPool(64 << 10)

// Accept performs the handshake with a client. It takes nothing but a goroutine before the
// whole ClientHello has arrived, and for one that is longer than usual, memory for what has
// arrived. The caller has set the deadline of entry.
func (all *Handshakes) Accept(w Wire, entry *SweepEntry, block places.Block, config *tls.Config) (*TLSConn, error) {
	err := AwaitPrelude(entry, w.Raw, all.sweeper, MaxClientHelloBytes, WholeClientHello)
	h := newHandshake(all, w.Raw, entry, block)
	defer h.end()
	defer h.dropHello()
	if err == ErrTooLong { // than usual
		err = h.awaitLongHello()
	}
	if err == nil {
		err = h.proceed()
	}
	if err != nil {
		all.count(nil)
		return nil, err
	}
	socket := &tlsSocket{Conn: w.Conn, handshaking: true, handshake: h}
	t := &TLSConn{Conn: tls.Server(socket, config), socket: socket}
	err = t.Handshake()
	socket.handshaking, socket.handshake = false, nil
	if err != nil {
		all.count(nil)
		return t, err
	}
	state := t.ConnectionState()
	all.count(&state)
	return t, nil
}

// ConnectTLS performs the handshake with a peer. The caller has set the deadline of conn.
func ConnectTLS(conn Conn, config *tls.Config) (*TLSConn, error) {
	socket := &tlsSocket{Conn: conn, handshaking: true}
	t := &TLSConn{Conn: tls.Client(socket, config), socket: socket}
	err := t.Handshake()
	socket.handshaking = false
	return t, err
}

// errNoCloseNotify means that a connection with TLS has ended without the alert that
// marks the end of its bytes: it was cut (RFC 8446, section 6.1).
var errNoCloseNotify = errors.New("TLS: the connection has ended without close_notify")

// receive implements wire.receive. Only a close_notify is the end of the bytes.
func (t *TLSConn) receive(fd uintptr, b []byte) (int, error) {
	t.socket.fd, t.socket.got = fd, false
	n, err := t.Conn.Read(b)
	switch {
	case n > 0:
		return n, nil
	case errors.Is(err, errNothingYet):
		return 0, ErrWouldBlock
	case t.socket.ended: // crypto/tls takes the end between two records for a close_notify
		return 0, errNoCloseNotify
	case err == io.EOF:
		return 0, nil
	}
	return 0, err
}

// Seal encrypts b, at most SealBytes long, and returns the records in buffer. Pending
// records of crypto/tls come first.
func (t *TLSConn) Seal(b []byte, buffer *Buffer) ([]byte, error) {
	t.socket.collect(buffer.Bytes[:0])
	_, err := t.Conn.Write(b)
	return t.socket.collect(nil), err
}

// SealEach encrypts b in parts, and calls send with the records of each, which are in buffer.
func (t *TLSConn) SealEach(b []byte, buffer *Buffer, send func(records []byte) error) error {
	for len(b) > 0 {
		n := min(len(b), SealBytes)
		records, err := t.Seal(b[:n], buffer)
		if err == nil {
			err = send(records)
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// write implements wire.write.
func (t *TLSConn) write(b []byte) (int, error) {
	if len(t.unsent) == 0 {
		t.buffer, t.sealed = SealBuffers.Get().(*Buffer), min(len(b), SealBytes)
		var err error
		if t.unsent, err = t.Seal(b[:t.sealed], t.buffer); err != nil {
			return 0, err
		}
	}
	n, err := t.socket.Conn.Write(t.unsent)
	if t.unsent = t.unsent[n:]; len(t.unsent) > 0 {
		return 0, err
	}
	SealBuffers.Put(t.buffer)
	t.buffer = nil
	return t.sealed, err
}

// CloseNotify sends a close_notify alert if it fits the socket buffer.
func (t *TLSConn) CloseNotify() {
	if t.Conn.CloseWrite() != nil || len(t.unsent) > 0 {
		return
	}
	alert := t.socket.collect(nil)
	if raw, err := t.socket.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { Send(fd, alert) })
	}
}

// A tlsSocket is the connection as crypto/tls sees it.
type tlsSocket struct {
	Conn
	handshaking bool       // reads and writes may wait
	handshake   *handshake // with a client, while it lasts
	fd          uintptr    // of the socket, after the handshake
	drained     bool       // the last read emptied the socket
	got         bool       // bytes were read by the present call of TLSConn.receive
	ended       bool       // the other side has closed it

	mu sync.Mutex
	// mu guards the field below. The reading goroutine writes too: the response to a
	// key update of the other side.
	records []byte // to send
}

// maxRecordsBytes bounds tlsSocket.records: what Seal adds, and as much before it. Nothing else
// sends the responses to key updates, and there may be nothing to send for as long as a body
// arrives.
const maxRecordsBytes = 2 * (64 << 10)

// errNotSent means that the other side asks for more and more key updates, while nothing is sent to
// it.
var errNotSent = errors.New("TLS: too many records that are not sent yet")

// errNothingYet is temporary: crypto/tls does not store it.
var errNothingYet net.Error = nothingYet{}

type nothingYet struct{}

func (nothingYet) Error() string   { return "nothing has arrived" }
func (nothingYet) Timeout() bool   { return true }
func (nothingYet) Temporary() bool { return true }

// Read waits during the handshake only.
func (s *tlsSocket) Read(b []byte) (int, error) {
	if s.handshaking {
		if s.handshake == nil { // with a peer
			return s.Conn.Read(b)
		}
		return s.handshake.read(b)
	}
	if s.drained && !s.got {
		return 0, errNothingYet
	}
	// In the middle of a record it is read again until there is nothing: its end may have come
	// with these bytes, and then nothing announces it.
	n, err := Receive(s.fd, b)
	s.drained, s.got = n < len(b), n > 0
	switch {
	case err == ErrWouldBlock:
		return 0, errNothingYet
	case n == 0 && err == nil:
		s.ended = true
		return 0, io.EOF
	}
	return n, err
}

// Write sends the records of the handshake and collects the records after it.
func (s *tlsSocket) Write(b []byte) (int, error) {
	switch {
	case s.handshake != nil:
		return s.handshake.write(b)
	case s.handshaking: // with a peer
		return s.Conn.Write(b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.records)+len(b) > maxRecordsBytes {
		return 0, errNotSent
	}
	s.records = append(s.records, b...)
	return len(b), nil
}

// collect returns the collected records and makes next the memory of later ones. If
// next is not nil, the returned records are copied to it and stay collected.
func (s *tlsSocket) collect(next []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	records := s.records
	if s.records = next; next != nil {
		s.records = append(next, records...)
	}
	return records
}

// SetWriteDeadline does nothing: crypto/tls sets a deadline for close_notify.
func (s *tlsSocket) SetWriteDeadline(time.Time) error { return nil }

// UsesHTTP2 reports whether the client has chosen HTTP/2. Call it after the handshake.
func (t *TLSConn) UsesHTTP2() bool { return t.ConnectionState().NegotiatedProtocol == ALPNHTTP2 }

// Protocols of ALPN.
const (
	ALPNHTTP1 = "http/1.1"
	ALPNHTTP2 = "h2"
)

// SuitsHTTP2 reports whether HTTP/2 allows the cipher suite (RFC 9113, section 9.2.2).
func (t *TLSConn) SuitsHTTP2() bool {
	state := t.ConnectionState()
	return state.Version >= tls.VersionTLS13 || slices.Contains(certificates.Suites, state.CipherSuite)
}
