package proxyprotocol

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"

	"sluice/test/verify"
)

const headerV1 = "PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"

// headerV2 returns a PROXY header of version 2 with that client and an extension of so
// many bytes.
func headerV2(t *testing.T, client string, extension int) string {
	t.Helper()
	h := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(client)), net.TCPAddrFromAddrPort(netip.MustParseAddrPort("198.51.100.1:443")))
	if extension > 0 {
		verify.NoError(t, h.SetTLVs([]proxyproto.TLV{{Type: 0xE0, Value: make([]byte, extension)}}))
	}
	b := verify.Result(h.Format()).Must(t)
	return string(b)
}

func TestLength(t *testing.T) {
	v2 := headerV2(t, "203.0.113.7:4711", 100)
	for _, whole := range []string{headerV1, v2, "PROXY UNKNOWN\r\n"} {
		for n := range len(whole) {
			if got, err := Length([]byte(whole[:n])); n > 0 && (got != 0 || err != nil) {
				t.Errorf("%q: %d, %v, want more bytes", whole[:n], got, err)
			}
		}
		got, err := Length([]byte(whole + "GET /"))
		verify.That(t, got == len(whole) && err == nil, "%q: %d, %v, want %d", whole, got, err, len(whole))
	}
	long := []byte(v2)
	binary.BigEndian.PutUint16(long[v2LengthFrom:], 5000)
	for _, wrong := range []string{"GET / HTTP/1.1\r\n", "PROXx", "\r\n\r\n\x00\r\nquit\n", "PROXY " + strings.Repeat("x", 200), string(long)} {
		got, err := Length([]byte(wrong))
		verify.That(t, err != nil, "%q: %d, want an error", wrong, got)
	}
}

// Whatever arrives, the length and the parser agree, and nothing panics.
func FuzzHeader(f *testing.F) {
	f.Add([]byte(headerV1))
	f.Add([]byte("PROXY TCP6 ::1 ::2 1 2\r\nrest"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(v2Start + "\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02"))
	f.Add([]byte(v2Start + "\x20\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := Length(b)
		if err != nil || n == 0 {
			return
		}
		verify.Require(t, n <= len(b) && n <= MaxBytes, "length %d of %d bytes", n, len(b))
		a, ok, err := Parse(b[:n])
		verify.Require(t, err != nil || !ok || a.Client.IsValid() == a.Server.IsValid(), "no addresses: %+v", a)
		rest := bytes.NewReader(b)
		reader := bufio.NewReader(rest)
		if _, err := proxyproto.Read(reader); err == nil {
			taken := len(b) - rest.Len() - reader.Buffered()
			verify.Require(t, taken == n, "the library reads %d bytes, want %d", taken, n)
		}
	})
}

func TestMixedAddresses(t *testing.T) {
	for _, version := range []byte{1, 2} {
		for _, a := range []Addresses{{netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::1]:2")}, {}} {
			header := Header(version, a)
			n, err := Length(header)
			verify.That(t, n == len(header) && err == nil, "version %d: %q is no header: %d, %v", version, header, n, err)
			_, known, err := Parse(header)
			verify.That(t, known == a.Client.IsValid() && err == nil, "version %d: %q: known %v, %v", version, header, known, err)
		}
	}
}

// A client at a unix socket of the proxy is not the proxy.
func TestClientAtAUnixSocket(t *testing.T) {
	ends := string(make([]byte, 216))
	for _, test := range []struct {
		command string
		known   bool
	}{{"\x21", true}, {"\x20", false}} {
		header := []byte(v2Start + test.command + "\x31\x00\xd8/tmp/socket" + ends[len("/tmp/socket"):])
		n, err := Length(header)
		verify.That(t, n == len(header) && err == nil, "length %d, %v", n, err)
		a, known, err := Parse(header)
		verify.That(t, err == nil && known == test.known && a == Addresses{}, "command %q: %+v, known %v, %v", test.command, a, known, err)
	}
}
