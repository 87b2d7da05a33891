package route

import (
	"net/netip"
	"testing"

	"sluice/test/verify"
)

// A network ends with its last address, also where networks overlap, and an address of the other
// family is in none.
func TestNetworks(t *testing.T) {
	var prefixes []netip.Prefix
	for _, p := range []string{"10.1.0.0/16", "10.0.0.0/15", "10.2.3.4/31", "192.0.2.7/32", "fd00:0:0:1::/64", "fe80::/127"} {
		prefixes = append(prefixes, netip.MustParsePrefix(p))
	}
	n := newNetworks(prefixes)
	for _, c := range []struct {
		address string
		want    bool
	}{
		{"9.255.255.255", false}, {"10.0.0.0", true}, {"10.0.255.255", true}, {"10.1.255.255", true}, {"10.2.0.0", false},
		{"10.2.3.3", false}, {"10.2.3.4", true}, {"10.2.3.5", true}, {"10.2.3.6", false},
		{"192.0.2.6", false}, {"192.0.2.7", true}, {"192.0.2.8", false},
		{"fd00:0:0:1::", true}, {"fd00:0:0:1:ffff:ffff:ffff:ffff", true}, {"fd00:0:0:2::", false}, {"fd00::ffff:ffff:ffff:ffff", false},
		{"fe80::1", true}, {"fe80::2", false}, {"::a00:1", false},
	} {
		verify.Equal(t, n.contains(netip.MustParseAddr(c.address)), c.want, "%s", c.address)
	}
	verify.That(t, !n.contains(netip.Addr{}), "an unknown address is in a network")
}
