package upstream

import "sluice/proxy/socket"

// TLS of a connection to a peer. The bytes of a request are encrypted before they are
// sent, at most socket.SealBytes at a time.

// seal encrypts request, the head and a small body.
func (o *outgoing) seal(tls *socket.TLSConn) (err error) {
	o.records = socket.SealBuffers.Get().(*socket.Buffer)
	o.request, err = tls.Seal(o.request, o.records)
	return err
}

// next makes the next part of body the request, after the part before was sent. tls is nil
// without TLS.
func (o *outgoing) next(tls *socket.TLSConn) (err error) {
	if tls == nil {
		o.request, o.body = o.body, nil
		return nil
	}
	n := min(len(o.body), socket.SealBytes)
	if n == 0 {
		o.request = nil
		o.dropRecords()
		return nil
	}
	o.request, err = tls.Seal(o.body[:n], o.records)
	o.body = o.body[n:]
	return err
}

// dropRecords gives records back.
func (o *outgoing) dropRecords() {
	if o.records != nil {
		socket.SealBuffers.Put(o.records)
		o.records = nil
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
