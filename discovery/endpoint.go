package discovery

import (
	"path/filepath"
	"strings"
)

// The networks of Endpoint.
const (
	NetworkTCP  = "tcp"
	NetworkUnix = "unix"
)

// Endpoint returns the network of an address, and the address in it: the absolute path of
// unix:/PATH, or "host:port".
func Endpoint(address string) (network, at string) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok && strings.HasPrefix(path, "/") {
		return NetworkUnix, filepath.Clean(path)
	}
	return NetworkTCP, address
}

// Authority returns the Host of requests to an address: a unix socket has none of its own.
func Authority(address string) string {
	if network, _ := Endpoint(address); network == NetworkUnix {
		return "localhost"
	}
	return address
}
