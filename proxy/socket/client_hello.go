package socket

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
)

// The first message of a TLS client, with the name of the server that it wants
// (RFC 6066, section 3). With Encrypted Client Hello that is the public name.

const (
	recordHeaderBytes   = 5
	recordHandshake     = 22
	maxRecordBytes      = 16 << 10
	handshakeHeader     = 4
	typeClientHello     = 1
	MaxClientHelloBytes = RequestBufferBytes // of a usual one

	// maxLongHelloBytes bounds every ClientHello, with the headers of its records, of which
	// it has up to five if the client does not divide it more. crypto/tls has the same bound
	// for the message.
	maxLongHelloBytes = RelayBufferBytes
)

// UnrecognizedName is the fatal alert that no service has the name (RFC 8446, section 6).
var UnrecognizedName = []byte{21, 3, 3, 0, 2, 2, 112}

var ErrNoTLS = errors.New("no TLS")

// WholeClientHello reports whether b begins with all records of a ClientHello. It fails if b
// begins with something else, or the ClientHello is longer than any may be.
func WholeClientHello(b []byte) (bool, error) {
	missing, err := missingOfClientHello(b)
	return missing == 0 && err == nil, err
}

// missingOfClientHello returns how many bytes of a ClientHello are missing in b at least.
func missingOfClientHello(b []byte) (missing int, err error) {
	var header [handshakeHeader]byte
	length := 0 // of the handshake message, as far as it has arrived
	left := 0   // of it, if its header has arrived
	for {
		if len(b) > 0 && b[0] != recordHandshake || len(b) > 1 && b[1] != 3 {
			return 0, ErrNoTLS
		}
		if len(b) < recordHeaderBytes {
			return max(1, left), nil
		}
		record := int(binary.BigEndian.Uint16(b[3:]))
		if record == 0 || record > maxRecordBytes {
			return 0, ErrNoTLS
		}
		part := b[recordHeaderBytes:min(recordHeaderBytes+record, len(b))]
		if length < len(header) {
			copy(header[length:], part)
		}
		length += len(part)
		if length >= len(header) {
			left = len(header) + int(header[1])<<16 + int(header[2])<<8 + int(header[3]) - length
		}
		switch {
		case length > 0 && header[0] != typeClientHello:
			return 0, ErrNoTLS
		case left > maxLongHelloBytes-length:
			return 0, ErrTooLong
		case len(part) < record:
			return max(record-len(part), left), nil
		case length >= len(header) && left <= 0:
			return 0, nil
		}
		b = b[recordHeaderBytes+record:]
	}
}

// ServerName returns the name in a whole ClientHello; "": it has none.
func ServerName(hello []byte) (name string, err error) {
	parsed := errors.New("parsed")
	err = tls.Server(helloConn{hello: bytes.NewReader(hello)}, &tls.Config{
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

// helloConn is a connection from which a ClientHello is read. Until crypto/tls has it, it only
// reads and writes.
type helloConn struct {
	net.Conn // nil
	hello    *bytes.Reader
}

func (c helloConn) Read(b []byte) (int, error) { return c.hello.Read(b) }
func (helloConn) Write(b []byte) (int, error)  { return len(b), nil }
