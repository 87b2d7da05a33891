package route

import (
	"net/netip"
	"slices"
	"sort"

	"sluice/route/auth"
	"sluice/route/ratelimit"
)

var allIPv4, allIPv6 = netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)

// Access says which clients may use a route, by their addresses.
type Access struct {
	allow, deny networks
	nobody      bool
}

// NewAccess returns the access of clients in one of the networks of allow, which are all
// if there are none, and in none of deny.
func NewAccess(allow, deny []netip.Prefix) *Access {
	denied := newNetworks(Unmapped(deny))
	nobody := slices.Contains(denied, allIPv4) && slices.Contains(denied, allIPv6)
	return &Access{newNetworks(Unmapped(allow)), denied, nobody}
}

// Nobody reports whether all addresses of IPv4 and IPv6 are denied.
func (a *Access) Nobody() bool { return a.nobody }

// Unmapped returns networks of IPv4 addresses that are mapped to IPv6 (::ffff:10.0.0.0/104) as
// networks of IPv4: no address that is compared with them is mapped.
func Unmapped(prefixes []netip.Prefix) []netip.Prefix {
	const mapped = 128 - 32
	all := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		if all[i] = p; p.Addr().Is4In6() && p.Bits() >= mapped {
			all[i] = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
		}
	}
	return all
}

// Allows reports whether a client, whose address is neither mapped nor has a zone, may
// use the route. The zero address stands for an unknown client, which may not.
func (a *Access) Allows(client netip.Addr) bool {
	return client.IsValid() && !a.deny.contains(client) && (len(a.allow) == 0 || a.allow.contains(client))
}

// RateLimit limits the requests of a route.
type RateLimit struct {
	*ratelimit.Limiter
	// PerRoute: all requests share one bucket.
	PerRoute bool
	// Key is what else has buckets of its own: each client address, IPv6 addresses by
	// their /64, or each value of a header field. Requests without the field share one.
	Key HashKey
	// Claim, if not nil, is the claim of the token that has buckets in place of Key.
	Claim *auth.ClaimName
}

// networks is a set of addresses: networks in the order of their first addresses, of which none
// contains another one. So of two, all addresses of one are before all of the other one.
type networks []netip.Prefix

func newNetworks(prefixes []netip.Prefix) (all networks) {
	// A network comes before those within it.
	for _, p := range slices.SortedFunc(slices.Values(prefixes), netip.Prefix.Compare) {
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
