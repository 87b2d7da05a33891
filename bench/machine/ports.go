package machine

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

// FreeAddresses returns n loopback addresses on ports that nobody has. They lie
// below the range that the kernel gives to outgoing connections, of which there
// are thousands here.
func FreeAddresses(n int) ([]string, error) {
	const lowest, tries = 12_000, 1000
	beyond := 32_768
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if _, err := fmt.Sscan(string(text), &beyond); err != nil {
			return nil, fmt.Errorf("range of outgoing ports: %w", err)
		}
	}
	beyond = max(beyond, lowest+1000)
	var addresses []string
	for try := 0; len(addresses) < n; try++ {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowest+rand.IntN(beyond-lowest)))
		l, err := net.Listen("tcp", address)
		if err != nil {
			if try == tries {
				return nil, fmt.Errorf("find a free port: %w", err)
			}
			continue
		}
		defer l.Close() // all at the end, so that no port comes twice
		addresses = append(addresses, address)
	}
	return addresses, nil
}
