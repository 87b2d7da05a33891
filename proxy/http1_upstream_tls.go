package proxy

import "io"

// TLS of a connection to a peer. The bytes of a request are encrypted before they are
// sent, at most sealBytes at a time.

// quietNow is the function quiet. With TLS, a peer may have sent records without data,
// such as session tickets.
func (u *upstreamConn) quietNow(fd uintptr) bool {
	if u.tls == nil {
		return quiet(fd)
	}
	var b [1]byte
	w := u.wire()
	w.wake()
	_, err := w.receive(fd, b[:])
	return err == errWouldBlock
}

// sealRequest encrypts request, the head and a small body.
func (u *upstreamConn) sealRequest() (err error) {
	u.records = sealBuffers.Get().(*buffer)
	u.request, err = u.tls.seal(u.request, u.records)
	return err
}

// nextPart makes the next part of body the request, after the part before was sent.
func (u *upstreamConn) nextPart() (err error) {
	if u.tls == nil {
		u.request, u.body = u.body, nil
		return nil
	}
	n := min(len(u.body), sealBytes)
	if n == 0 {
		u.request = nil
		u.dropRecords()
		return nil
	}
	u.request, err = u.tls.seal(u.body[:n], u.records)
	u.body = u.body[n:]
	return err
}

// dropRecords gives records back.
func (u *upstreamConn) dropRecords() {
	if u.records != nil {
		sealBuffers.Put(u.records)
		u.records = nil
	}
}

// writeSealed writes all of b, encrypted if the connection uses TLS, with records as
// the memory, which it gives back.
func (u *upstreamConn) writeSealed(records *buffer, b []byte) error {
	if u.tls == nil {
		return u.write(b)
	}
	defer sealBuffers.Put(records)
	for len(b) > 0 {
		n := min(len(b), sealBytes)
		sealed, err := u.tls.seal(b[:n], records)
		if err == nil {
			err = u.write(sealed)
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// readConn waits for bytes and reads them into b.
func (u *upstreamConn) readConn(b []byte) (n int, err error) {
	if u.tls == nil {
		return u.conn.Read(b)
	}
	w := u.wire()
	waitErr := u.raw.Read(func(fd uintptr) bool {
		w.wake()
		n, err = w.receive(fd, b)
		return err != errWouldBlock
	})
	if waitErr != nil {
		return 0, waitErr
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}
