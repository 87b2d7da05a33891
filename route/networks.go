package route

import (
	"net/netip"
	"slices"
	"sort"
)

// networks is a set of addresses: networks in the order of their first addresses, of which none
// contains another one. So of two, all addresses of one are before all of the other one.
type networks []netip.Prefix

func newNetworks(prefixes []netip.Prefix) (all networks) {
	for _, p := range slices.SortedFunc(slices.Values(prefixes), netip.Prefix.Compare) { // a network before those within it
		if n := len(all); n == 0 || !all[n-1].Contains(p.Addr()) {
			all = append(all, p.Masked())
		}
	}
	return all
}

// contains reports whether a is in the set. a is neither mapped nor has a zone. IPv4
// addresses are before IPv6 ones, and the zero address is before both.
func (n networks) contains(a netip.Addr) bool {
	after := sort.Search(len(n), func(i int) bool { return n[i].Addr().Compare(a) > 0 })
	return after > 0 && n[after-1].Contains(a)
}
