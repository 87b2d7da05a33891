package proxy

import (
	"net/netip"
	"sync"
	"syscall"
)

// admission decides which connections are let in. One client that opens very
// many takes at most its share of them, so that the others go on. Safe for
// concurrent use.
type admission struct {
	limit           int // of connections
	perAddressLimit int
	trusted         []netip.Prefix // exempt from perAddressLimit

	mu sync.Mutex
	// mu guards the fields below.
	open       int
	perAddress map[netip.Addr]int
}

func newAdmission(limits Limits, trusted []netip.Prefix) *admission {
	return &admission{
		limit: limits.Connections, perAddressLimit: limits.ConnectionsPerAddress,
		trusted: trusted, perAddress: make(map[netip.Addr]int),
	}
}

// admit reports whether a connection from address is let in. Then leave must
// be called when it ends.
func (a *admission) admit(address netip.Addr) bool {
	block := clientBlock(address)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open >= a.limit || a.perAddress[block] >= a.perAddressLimit && !contains(a.trusted, address) {
		return false
	}
	a.open++
	a.perAddress[block]++
	return true
}

func (a *admission) leave(address netip.Addr) {
	block := clientBlock(address)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open--
	if a.perAddress[block]--; a.perAddress[block] == 0 {
		delete(a.perAddress, block)
	}
}

// clientBlock returns what counts as one client: an IPv4 address, or the /64
// of an IPv6 address, which is what one host gets and may use all of.
func clientBlock(address netip.Addr) netip.Addr {
	if address.Is4() {
		return address
	}
	prefix, err := address.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return prefix.Addr()
}

// unmapped returns networks as contains wants them: one of IPv4-mapped addresses
// (::ffff:10.0.0.0/104) is the network of the IPv4 addresses, as which clients
// at a socket for both versions are known, too.
func unmapped(prefixes []netip.Prefix) []netip.Prefix {
	plain := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		if mapped := 128 - 32; p.Addr().Is4In6() && p.Bits() >= mapped {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
		}
		plain[i] = p
	}
	return plain
}

// contains reports whether address, which is not IPv4-mapped, is in one of the
// networks.
func contains(prefixes []netip.Prefix, address netip.Addr) bool {
	for _, prefix := range prefixes {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}

// defaultConnectionLimit leaves half of the descriptors that the process may
// have to the connections to peers, and some for everything else.
func defaultConnectionLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<21 {
		return 1 << 20
	}
	return max(int(limit.Cur)/2-64, 16)
}
