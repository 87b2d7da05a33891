package socket

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"sluice/test/verify"
)

// helloOf returns what a client sends first.
func helloOf(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	var hello bytes.Buffer
	config.InsecureSkipVerify = true
	tls.Client(recordingConn{sent: &hello}, config).Handshake() // fails
	return hello.Bytes()
}

// recordingConn records what is sent, and nothing arrives.
type recordingConn struct {
	helloConn
	sent *bytes.Buffer
}

func (c recordingConn) Read([]byte) (int, error)    { return 0, io.EOF }
func (c recordingConn) Write(b []byte) (int, error) { return c.sent.Write(b) }

// divided returns the message of one record in records of size bytes.
func divided(record []byte, size int) (records []byte) {
	for message := record[recordHeaderBytes:]; len(message) > 0; {
		n := min(size, len(message))
		records = append(records, record[:3]...)
		records = binary.BigEndian.AppendUint16(records, uint16(n))
		records = append(records, message[:n]...)
		message = message[n:]
	}
	return records
}

func TestServerName(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		config *tls.Config
	}{
		{"git.example.com", &tls.Config{ServerName: "git.example.com"}},
		{"", &tls.Config{}},
		{"old.example.com", &tls.Config{ServerName: "old.example.com", MaxVersion: tls.VersionTLS12}},
		{"long.example.com", &tls.Config{ServerName: "long.example.com", NextProtos: []string{strings.Repeat("x", 200), strings.Repeat("y", 200)}}},
	} {
		hello := helloOf(t, test.config)
		for _, b := range [][]byte{hello, divided(hello, 100), divided(hello, 3)} {
			for n := range len(b) {
				whole, err := WholeClientHello(b[:n])
				verify.Require(t, !whole && err == nil, "%s: the first %d of %d bytes: %v, %v", test.name, n, len(b), whole, err)
			}
			whole, err := WholeClientHello(append(b[:len(b):len(b)], "more"...))
			verify.That(t, whole && err == nil, "%s: %v, %v, want the whole", test.name, whole, err)
			name, err := ServerName(b)
			verify.That(t, name == test.name && err == nil, "%s: got %q, %v", test.name, name, err)
		}
	}
	for _, wrong := range []string{"GET / HTTP/1.1\r\n", "\x16\x02", "\x16\x03\x01\x00\x00", "\x16\x03\x01\xff\xff", "\x16\x03\x01\x00\x04\x02\x00\x00\x00"} {
		whole, err := WholeClientHello([]byte(wrong))
		verify.That(t, !whole && err == ErrNoTLS, "%q: %v, %v, want errNoTLS", wrong, whole, err)
	}
}

// Whatever a client sends, nothing panics, and what is whole stays whole.
func FuzzClientHello(f *testing.F) {
	hello := helloOf(f, &tls.Config{ServerName: "a.example.com"})
	f.Add(hello)
	f.Add(divided(hello, 50))
	f.Add([]byte("\x16\x03\x01\x00\x04\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, err := WholeClientHello(b)
		if missing, _ := missingOfClientHello(b); err == nil && !whole && missing > 0 {
			if n := min(missing-1, 1<<20); n > 0 { // as many bytes are not enough, whatever they are
				early, _ := WholeClientHello(append(b[:len(b):len(b)], make([]byte, n)...))
				verify.Require(t, !early, "whole with %d bytes more, not %d", n, missing)
			}
		}
		if !whole {
			return
		}
		again, _ := WholeClientHello(append(b[:len(b):len(b)], 0))
		verify.Require(t, again && err == nil, "%v with one byte more, %v", again, err)
		ServerName(b)
	})
}
