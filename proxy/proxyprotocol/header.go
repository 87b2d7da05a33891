// Package proxyprotocol reads and writes headers of the PROXY protocol: a proxy sends one at the
// start of a connection, before TLS, that has the addresses of its client. It does no I/O.
// https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt
package proxyprotocol

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"

	"sluice/proxy/socket"
)

const (
	// MaxBytes is the maximum length of a header.
	MaxBytes = v2Fixed + 4<<10

	v1Bytes      = 107 // the maximum length of version 1
	v2Fixed      = 16  // the length of version 2 without addresses and extensions
	v2LengthFrom = 14
	v1Start      = "PROXY "
	v2Start      = "\r\n\r\n\x00\r\nQUIT\n"
)

var errNone = errors.New("no PROXY header")

// Length returns the length of the PROXY header at the start of b; 0: b has
// only a part of it.
func Length(b []byte) (int, error) {
	begins := func(start string) bool {
		n := min(len(b), len(start))
		return string(b[:n]) == start[:n]
	}
	switch {
	case begins(v1Start):
		if end := bytes.Index(b[:min(len(b), v1Bytes)], []byte("\r\n")); end >= 0 {
			return end + 2, nil
		}
		if len(b) >= v1Bytes {
			return 0, socket.ErrTooLong
		}
		return 0, nil
	case begins(v2Start):
		if len(b) < v2Fixed {
			return 0, nil
		}
		n := v2Fixed + int(binary.BigEndian.Uint16(b[v2LengthFrom:]))
		switch {
		case n > MaxBytes:
			return 0, socket.ErrTooLong
		case n > len(b):
			return 0, nil
		}
		return n, nil
	}
	return 0, errNone
}

// Addresses are the two ends of a client's connection. An end at a unix socket is the zero value.
type Addresses struct {
	Client netip.AddrPort
	Server netip.AddrPort // that the client has connected to
}

// Parse returns the addresses in a complete PROXY header. ok is false if it has none: the proxy
// speaks for itself, as for a health check, or does not know them. A client that has connected to
// the proxy by a unix socket has the zero value.
func Parse(header []byte) (a Addresses, ok bool, err error) {
	h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(header)))
	if err != nil {
		return a, false, err
	}
	if _, unix := h.SourceAddr.(*net.UnixAddr); unix && !h.Command.IsLocal() {
		return a, true, nil // and not the proxy's own address, which may be trusted or let in
	}
	client, _ := h.SourceAddr.(*net.TCPAddr)
	server, _ := h.DestinationAddr.(*net.TCPAddr)
	if h.Command.IsLocal() || client == nil || server == nil {
		return a, false, nil
	}
	return Addresses{AddressOf(client), AddressOf(server)}, true, nil
}

// Header returns the PROXY header of that version for a connection. If one of its
// ends is at a unix socket, the header has no addresses.
func Header(version byte, a Addresses) []byte {
	if a.Client.IsValid() && a.Server.IsValid() {
		h := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(a.Client), net.TCPAddrFromAddrPort(a.Server))
		if header, err := h.Format(); err == nil {
			return header
		}
	}
	header, _ := (&proxyproto.Header{Version: version, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}).Format()
	return header
}

// AddressOf returns the address without a zone, and an IPv4-mapped one as IPv4. A unix socket has
// none.
func AddressOf(a net.Addr) (none netip.AddrPort) {
	if _, ok := a.(*net.UnixAddr); ok {
		return none
	}
	tcp := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(tcp.Addr().Unmap().WithZone(""), tcp.Port())
}
