package locality

import (
	"net/netip"
	"strings"
)

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
