package locality

import (
	"net/netip"
	"slices"
	"strings"
)

// metadata are the addresses at which clouds tell a machine its credentials, and which are not
// link-local: AWS over IPv6, Alibaba, Azure's wire server, and Oracle.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("192.0.0.192"),
}

// forbidden returns the name of a kind of address to which no request goes, or "". ip is unmapped.
func forbidden(ip netip.Addr) string {
	switch {
	case ip.IsLinkLocalUnicast():
		return "link-local"
	case slices.Contains(metadata, ip):
		return "cloud metadata"
	}
	return ""
}

// kind returns the name of a kind of address that every machine has, or "". ip is
// unmapped.
func kind(ip netip.Addr) string {
	switch {
	case ip.IsLoopback():
		return "loopback"
	case ip.IsLinkLocalUnicast():
		return "link-local"
	case ip.IsUnspecified():
		return "unspecified"
	}
	return ""
}

// Ambiguous reports whether a host may be a different machine for each client: a
// loopback, link-local or unspecified address, or localhost. Other names have to be
// resolved first.
func Ambiguous(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return kind(ip.Unmap()) != ""
	}
	return isLocalhost(host)
}

// isLocalhost reports whether a name is loopback by definition (RFC 6761, section 6.3).
func isLocalhost(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// normalize returns an address without a zone, and IPv4 unmapped.
func normalize(to netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(to.Addr().Unmap().WithZone(""), to.Port())
}
