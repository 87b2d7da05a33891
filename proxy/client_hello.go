package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"
)

// The first message of a TLS client, with the name of the server that it wants
// (RFC 6066, section 3). With Encrypted Client Hello that is the public name.

const (
	recordHeaderBytes   = 5
	recordHandshake     = 22
	maxRecordBytes      = 16 << 10
	handshakeHeader     = 4
	typeClientHello     = 1
	maxClientHelloBytes = requestBufferBytes
)

// unrecognizedName is the fatal alert that no service has the name (RFC 8446, section 6).
var unrecognizedName = []byte{21, 3, 3, 0, 2, 2, 112}

var errNoTLS = errors.New("no TLS")

// wholeClientHello reports whether b begins with all records of a ClientHello.
func wholeClientHello(b []byte) (bool, error) {
	var header [handshakeHeader]byte
	length := 0 // of the handshake message, as far as it has arrived
	for {
		if len(b) > 0 && b[0] != recordHandshake || len(b) > 1 && b[1] != 3 {
			return false, errNoTLS
		}
		if len(b) < recordHeaderBytes {
			return false, nil
		}
		record := int(binary.BigEndian.Uint16(b[3:]))
		if record == 0 || record > maxRecordBytes {
			return false, errNoTLS
		}
		part := b[recordHeaderBytes:min(recordHeaderBytes+record, len(b))]
		if length < len(header) {
			copy(header[length:], part)
		}
		length += len(part)
		switch {
		case length > 0 && header[0] != typeClientHello:
			return false, errNoTLS
		case len(part) < record:
			return false, nil
		case length >= len(header) && length >= len(header)+int(header[1])<<16+int(header[2])<<8+int(header[3]):
			return true, nil
		}
		b = b[recordHeaderBytes+record:]
	}
}

// serverName returns the name in a whole ClientHello; "": it has none.
func serverName(hello []byte) (name string, err error) {
	parsed := errors.New("parsed")
	err = tls.Server(helloConn{bytes.NewReader(hello)}, &tls.Config{
		GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
			name = info.ServerName
			return nil, parsed // ends the handshake
		},
	}).Handshake()
	if errors.Is(err, parsed) {
		return name, nil
	}
	return "", err
}

// helloConn is a connection from which a ClientHello is read.
type helloConn struct{ hello *bytes.Reader }

func (c helloConn) Read(b []byte) (int, error)     { return c.hello.Read(b) }
func (helloConn) Write(b []byte) (int, error)      { return io.Discard.Write(b) }
func (helloConn) Close() error                     { return nil }
func (helloConn) LocalAddr() net.Addr              { return nil }
func (helloConn) RemoteAddr() net.Addr             { return nil }
func (helloConn) SetDeadline(time.Time) error      { return nil }
func (helloConn) SetReadDeadline(time.Time) error  { return nil }
func (helloConn) SetWriteDeadline(time.Time) error { return nil }
