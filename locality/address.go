package locality

import (
	"net/netip"
	"strings"
)

// kind returns the word for an address that each machine has for itself, or "". IPv4
// comes as such, not in the form of IPv6.
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

// Ambiguous reports whether a host is another one on each machine that uses it: a
// loopback, link-local or unspecified address, or localhost. Other names may be,
// too, which only shows when they are resolved.
func Ambiguous(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return kind(ip.Unmap()) != ""
	}
	return isLocalhost(host)
}

// isLocalhost reports whether a name is loopback by definition (RFC 6761, section
// 6.3).
func isLocalhost(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// plain returns an address as the rules compare it: without a zone, and IPv4 as
// such.
func plain(to netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(to.Addr().Unmap().WithZone(""), to.Port())
}
