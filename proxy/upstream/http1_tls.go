package upstream

import (
	"io"

	"sluice/proxy/socket"
)

// TLS of a connection to a peer. The bytes of a request are encrypted before they are
// sent, at most socket.SealBytes at a time.

// quietNow is the function quiet. With TLS, a peer may have sent records without data,
// such as session tickets.
func (u *HTTP1Conn) quietNow(fd uintptr) bool {
	if u.wire.TLS == nil {
		return socket.Quiet(fd)
	}
	var b [1]byte
	u.wire.Wake()
	_, err := u.wire.Receive(fd, b[:])
	return err == socket.ErrWouldBlock
}

// sealRequest encrypts request, the head and a small body.
func (u *HTTP1Conn) sealRequest() (err error) {
	u.records = socket.SealBuffers.Get().(*socket.Buffer)
	u.request, err = u.wire.TLS.Seal(u.request, u.records)
	return err
}

// nextPart makes the next part of body the request, after the part before was sent.
func (u *HTTP1Conn) nextPart() (err error) {
	if u.wire.TLS == nil {
		u.request, u.body = u.body, nil
		return nil
	}
	n := min(len(u.body), socket.SealBytes)
	if n == 0 {
		u.request = nil
		u.dropRecords()
		return nil
	}
	u.request, err = u.wire.TLS.Seal(u.body[:n], u.records)
	u.body = u.body[n:]
	return err
}

// dropRecords gives records back.
func (u *HTTP1Conn) dropRecords() {
	if u.records != nil {
		socket.SealBuffers.Put(u.records)
		u.records = nil
	}
}

// WriteSealed writes all of b, encrypted if the connection uses TLS, with records as
// the memory, which it gives back.
func (u *HTTP1Conn) writeSealed(records *socket.Buffer, b []byte) error {
	if u.wire.TLS == nil {
		return u.write(b)
	}
	defer socket.SealBuffers.Put(records)
	return u.wire.TLS.SealEach(b, records, u.write)
}

// WriteFirst sends the first bytes of a stream: the socket buffer is empty. An error shows in what
// follows.
func (u *HTTP1Conn) WriteFirst(b []byte) {
	if u.wire.TLS == nil {
		_, _ = u.wire.Conn.Write(b)
		return
	}
	_ = u.writeSealed(socket.SealBuffers.Get().(*socket.Buffer), b)
}

// readConn waits for bytes and reads them into b.
func (u *HTTP1Conn) readConn(b []byte) (n int, err error) {
	if u.wire.TLS == nil {
		return u.wire.Conn.Read(b)
	}
	waitErr := u.wire.Raw.Read(func(fd uintptr) bool {
		u.wire.Wake()
		n, err = u.wire.Receive(fd, b)
		return err != socket.ErrWouldBlock
	})
	if waitErr != nil {
		return 0, waitErr
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}
