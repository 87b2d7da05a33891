package packets

import (
	"encoding/binary"
	"errors"
	"math"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
)

// A message is a packet on its way to the old process, with its address and control messages, which
// have the ECN bits and the address of this machine:
//
//	2 bytes: the length of the rest
//	1 byte: the length of the IP address, and this
//	2 bytes: the port
//	1 byte: the length of the zone, and this
//	1 byte: the length of the control messages, and these
//	the packet

// sizeLen is the length of the first field.
const sizeLen = 2

var errMessage = errors.New("a passed packet has an invalid form")

// appendMessage appends m to b. It returns b if m cannot be passed.
func appendMessage(b []byte, m *ipv4.Message) []byte {
	addr, ok := m.Addr.(*net.UDPAddr)
	if !ok {
		return b
	}
	start := len(b)
	whole := append(b, 0, 0) // the length, when it is known
	for i, field := range [][]byte{addr.IP, []byte(addr.Zone), m.OOB[:m.NN]} {
		if len(field) > math.MaxUint8 {
			return b
		}
		whole = append(append(whole, byte(len(field))), field...)
		if i == 0 {
			whole = binary.BigEndian.AppendUint16(whole, uint16(addr.Port))
		}
	}
	whole = append(whole, m.Buffers[0][:m.N]...)
	size := len(whole) - start - sizeLen
	if size > math.MaxUint16 {
		return b
	}
	binary.BigEndian.PutUint16(whole[start:], uint16(size))
	return whole
}

// messageLen returns the length of the message at the start of b; 0: its length is not there yet.
func messageLen(b []byte) int {
	if len(b) < sizeLen {
		return 0
	}
	return sizeLen + int(binary.BigEndian.Uint16(b))
}

// parseMessage sets m to the message at the start of b, and returns its length; 0: b lacks a part
// of it. As with the kernel, what is longer than the buffers of m is cut.
func parseMessage(b []byte, m *ipv4.Message) (length int, err error) {
	length = messageLen(b)
	if length == 0 || len(b) < length {
		return 0, nil
	}
	rest := b[sizeLen:length]
	ip, rest, ok := cutField(rest)
	if !ok || len(rest) < 2 {
		return 0, errMessage
	}
	port := binary.BigEndian.Uint16(rest)
	zone, rest, ok := cutField(rest[2:])
	if !ok {
		return 0, errMessage
	}
	oob, packet, ok := cutField(rest)
	if _, isIP := netip.AddrFromSlice(ip); !ok || !isIP {
		return 0, errMessage
	}
	m.Addr = &net.UDPAddr{IP: net.IP(append([]byte(nil), ip...)), Port: int(port), Zone: string(zone)}
	m.N, m.NN, m.Flags = copy(m.Buffers[0], packet), copy(m.OOB, oob), 0
	return length, nil
}

// cutField cuts a field, which begins with its length, from the start of b.
func cutField(b []byte) (field, rest []byte, ok bool) {
	if len(b) == 0 || len(b)-1 < int(b[0]) {
		return nil, nil, false
	}
	end := 1 + int(b[0])
	return b[1:end], b[end:], true
}
