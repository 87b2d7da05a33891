package route

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sort"
)

// networks is a set of addresses: ranges in order that do not overlap.
type networks []addressRange

type addressRange struct{ first, last netip.Addr }

func newNetworks(prefixes []netip.Prefix) networks {
	var all networks
	for _, p := range prefixes {
		all = append(all, addressRange{p.Masked().Addr(), lastAddress(p)})
	}
	slices.SortFunc(all, func(a, b addressRange) int { return a.first.Compare(b.first) })
	merged := all[:0]
	for _, r := range all {
		if n := len(merged); n > 0 && merged[n-1].last.BitLen() == r.first.BitLen() && r.first.Compare(merged[n-1].last) <= 0 {
			if r.last.Compare(merged[n-1].last) > 0 {
				merged[n-1].last = r.last
			}
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// lastAddress returns the last address of p.
func lastAddress(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As16()
	host := p.Addr().BitLen() - p.Bits() // bits of the host
	high, low := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	if host >= 64 {
		low = ^uint64(0)
		high |= 1<<(host-64) - 1
	} else {
		low |= 1<<host - 1
	}
	binary.BigEndian.PutUint64(b[:8], high)
	binary.BigEndian.PutUint64(b[8:], low)
	last := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		last = last.Unmap()
	}
	return last
}

// contains reports whether a is in the set. a is neither mapped nor has a zone. IPv4
// addresses are before IPv6 ones, and the zero address is before both.
func (n networks) contains(a netip.Addr) bool {
	i := sort.Search(len(n), func(i int) bool { return n[i].last.Compare(a) >= 0 })
	return i < len(n) && n[i].first.Compare(a) <= 0
}
