package discovery

import (
	"net/url"
	"path/filepath"
	"strings"
)

// The networks of NetworkOf.
const (
	NetworkTCP  = "tcp"
	NetworkUnix = "unix"
)

// NetworkOf returns the network of an address, and the address in it: the absolute path of
// unix:/PATH, or "host:port".
func NetworkOf(address string) (network, at string) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok && strings.HasPrefix(path, "/") {
		return NetworkUnix, filepath.Clean(path)
	}
	return NetworkTCP, address
}

// Authority returns the Host of requests to an address: a unix socket has none of its own.
func Authority(address string) string {
	if network, _ := NetworkOf(address); network == NetworkUnix {
		return "localhost"
	}
	return address
}

// PathSegment escapes a name for one segment of a URL's path. Unlike url.PathEscape it escapes the
// names "." and "..", which servers take for this folder and its parent (RFC 3986 section 5.2.4).
func PathSegment(name string) string {
	if name == "." || name == ".." {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}
