package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/pires/go-proxyproto"

	"sluice/observe/panics"
	"sluice/proxy/socket"
)

// The PROXY protocol: a proxy in front of sluice sends a header at the start of a
// connection, before TLS, that has the addresses of its client.
// https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt

const (
	proxyHeaderV1Bytes    = 107 // the maximum length of version 1
	proxyHeaderV2Fixed    = 16  // the length of version 2 without addresses and extensions
	maxProxyHeaderBytes   = proxyHeaderV2Fixed + 4<<10
	proxyHeaderV1Start    = "PROXY "
	proxyHeaderV2Start    = "\r\n\r\n\x00\r\nQUIT\n"
	proxyHeaderLengthFrom = 14 // of version 2
)

var errNoProxyHeader = errors.New("no PROXY header")

// proxyHeaderLength returns the length of the PROXY header at the start of b; 0: b has
// only a part of it.
func proxyHeaderLength(b []byte) (int, error) {
	begins := func(start string) bool {
		n := min(len(b), len(start))
		return string(b[:n]) == start[:n]
	}
	switch {
	case begins(proxyHeaderV1Start):
		if end := bytes.Index(b[:min(len(b), proxyHeaderV1Bytes)], []byte("\r\n")); end >= 0 {
			return end + 2, nil
		}
		if len(b) >= proxyHeaderV1Bytes {
			return 0, socket.ErrTooLong
		}
		return 0, nil
	case begins(proxyHeaderV2Start):
		if len(b) < proxyHeaderV2Fixed {
			return 0, nil
		}
		n := proxyHeaderV2Fixed + int(binary.BigEndian.Uint16(b[proxyHeaderLengthFrom:]))
		switch {
		case n > maxProxyHeaderBytes:
			return 0, socket.ErrTooLong
		case n > len(b):
			return 0, nil
		}
		return n, nil
	}
	return 0, errNoProxyHeader
}

// addresses are the two ends of a client's connection.
type addresses struct {
	client netip.AddrPort
	server netip.AddrPort // that the client has connected to
}

// parseProxyHeader returns the addresses in a complete PROXY header. ok is false if it
// has none: the proxy speaks for itself, as for a health check, or does not know them.
func parseProxyHeader(header []byte) (a addresses, ok bool, err error) {
	h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(header)))
	if err != nil {
		return a, false, err
	}
	client, _ := h.SourceAddr.(*net.TCPAddr)
	server, _ := h.DestinationAddr.(*net.TCPAddr)
	if h.Command.IsLocal() || client == nil || server == nil {
		return a, false, nil
	}
	return addresses{plainAddress(client), plainAddress(server)}, true, nil
}

// proxyHeader returns the PROXY header of that version for a connection. If one of its
// addresses is IPv4 and the other IPv6, the header has no addresses.
func proxyHeader(version byte, a addresses) []byte {
	h := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(a.client), net.TCPAddrFromAddrPort(a.server))
	header, err := h.Format()
	if err != nil {
		header, _ = (&proxyproto.Header{Version: version, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}).Format()
	}
	return header
}

// localClient is the address of both ends of a unix socket, which has none: who uses it is a
// program of this machine.
var localClient = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)

// plainAddress returns the address without a zone, and an IPv4-mapped one as IPv4. That of a unix
// socket is localClient.
func plainAddress(a net.Addr) netip.AddrPort {
	if _, ok := a.(*net.UnixAddr); ok {
		return localClient
	}
	tcp := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(tcp.Addr().Unmap().WithZone(""), tcp.Port())
}

// An arrival is a new connection of a proxy whose PROXY header is awaited.
type arrival struct {
	socket.SweepEntry
	server   *Server
	listener *listener
	conn     socket.Conn
	raw      syscall.RawConn
	from     addresses // of the proxy
	admitted netip.Addr
	handed   bool // the connection is served, or closed
}

// awaitProxyHeader serves a connection of a proxy that was admitted.
func (s *Server) awaitProxyHeader(at *listener, conn socket.Conn, from addresses) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	a := &arrival{server: s, listener: at, conn: conn, raw: raw, from: from, admitted: from.client.Addr()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return net.ErrClosed
	}
	s.arrivals[a] = struct{}{}
	s.sweeper.Add(&a.SweepEntry, conn, s.shards.Add(1))
	a.Arm(s.sweeper, s.options.Load().Timeouts.Head)
	if s.draining.Load() { // Shutdown has bounded all other arrivals
		a.boundLocked(s.idleUntil.Load())
	}
	go a.serve()
	return nil
}

// boundLocked makes the wait for the header end at the coarse time until, or earlier. The
// caller holds the mutex of the server.
func (a *arrival) boundLocked(until int64) {
	if a.Deadline.Load() > until {
		a.ArmRead(max(until, 1))
	}
}

// serve reads the header and begins to serve the client.
func (a *arrival) serve() {
	s := a.server
	defer s.arrivalEnded(a)
	defer panics.Contain(panics.Connection, a.close)
	of, err := a.read()
	a.Remove()
	if err == nil {
		if err = s.begin(a.listener, a.conn, of); err == nil {
			a.handed = true
		}
	} else {
		s.log.Debug().Err(err).Str("listener", a.listener.name).Stringer("proxy", a.from.client.Addr()).Msg("no PROXY header was received")
	}
	a.close()
}

// close closes the connection, unless it is served.
func (a *arrival) close() {
	if a.handed {
		return
	}
	a.handed = true
	a.Remove()
	a.server.admission.leave(a.admitted)
	a.conn.Close()
}

// read returns the addresses of the client, which it admits.
func (a *arrival) read() (of addresses, err error) {
	s, proxy := a.server, a.from.client.Addr()
	length, known := 0, false
	err = socket.AwaitPrelude(&a.SweepEntry, a.raw, s.sweeper, maxProxyHeaderBytes, func(b []byte) (_ bool, err error) {
		if length, err = proxyHeaderLength(b); length > 0 {
			of, known, err = parseProxyHeader(b[:length])
		}
		return length > 0, err
	})
	a.Disarm()
	if err == nil {
		err = socket.Discard(a.raw, length)
	}
	switch {
	case err != nil:
		return of, err
	case !known:
		return a.from, nil
	case !s.admission.admit(of.client.Addr(), false):
		s.refused.Add(1)
		return of, fmt.Errorf("too many connections of %s", of.client.Addr())
	}
	s.admission.leave(proxy)
	a.admitted = of.client.Addr()
	return of, nil
}

func (s *Server) arrivalEnded(a *arrival) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.arrivals, a)
	s.noteDrainedLocked()
}
