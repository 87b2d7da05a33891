package places

import (
	"net"
	"net/netip"
)

// A Block is the addresses that count as one client: an IPv4 address, since its neighbours
// belong to others, or the /64 of an IPv6 address, which one host is assigned. It is
// comparable.
type Block struct{ first netip.Addr }

// Many is the block of clients that are not told apart: clients of a trusted proxy, and clients
// without an address, at unix sockets. It may have all places.
var Many Block

// BlockOf returns the block of an address, which is not IPv4-mapped. Of the zero address it is
// Many.
func BlockOf(address netip.Addr) Block {
	if address.Is4() {
		return Block{address}
	}
	prefix, err := address.WithZone("").Prefix(64)
	if err != nil {
		return Block{address}
	}
	return Block{prefix.Addr()}
}

// BlockBeyond returns the block of the other side of a connection.
func BlockBeyond(conn net.Conn) Block {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return BlockOf(tcp.AddrPort().Addr().Unmap())
	}
	return Many // at a unix socket
}
