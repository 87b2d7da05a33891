package consultest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// Agents have ports below those that systems give to connections and to
// listeners on any port (RFC 6335, section 6, and Linux's ip_local_port_range):
// else somebody might get one while its agent starts, or is down.
const firstPort, lastPort = 10000, 32767

const (
	blockSize  = 10  // ports that an agent reserves: those that it uses, and the first
	blockTries = 100 // blocks that may be reserved, or have a port in use
)

// ports are the ports of one agent, with Consul's names for them.
type ports struct {
	HTTP    int `json:"http"`
	HTTPS   int `json:"https"`
	DNS     int `json:"dns"`
	Server  int `json:"server"`
	SerfLAN int `json:"serf_lan"`
	SerfWAN int `json:"serf_wan"`
	GRPC    int `json:"grpc"`
	GRPCTLS int `json:"grpc_tls"`
}

// reserve returns ports that are free, for TCP and for UDP, and that no other
// process which uses this package takes until reserved is closed, whether the
// agent runs or not. The one for HTTP is as asked for if that is free; 0: any.
func reserve(http int) (p ports, reserved io.Closer, err error) {
	for try := 1; ; try++ {
		first := firstPort + blockSize*rand.IntN((lastPort-firstPort+1)/blockSize)
		if reserved, err = reserveBlock(first); err == nil {
			p = portsOf(first)
			break
		}
		if try == blockTries {
			return ports{}, nil, fmt.Errorf("reserve ports: %w", err)
		}
	}
	if http != 0 && free(http) == nil {
		p.HTTP = http
	}
	return p, reserved, nil
}

// ReservePort returns a port of 127.0.0.1 that is free, for a program that has to
// be told which one to use. No connection gets it by chance, and nobody else who
// asks here, until t ends.
func ReservePort(t testing.TB) int {
	t.Helper()
	p, reserved, err := reserve(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reserved.Close() })
	return p.HTTP
}

// reserveBlock reserves the ports from first on: who listens on the first one
// has them all.
func reserveBlock(first int) (reserved io.Closer, err error) {
	reserved, err = net.Listen("tcp4", loopback(first))
	if err != nil {
		return nil, err
	}
	for n := first + 1; n < first+blockSize; n++ {
		if err := free(n); err != nil {
			reserved.Close()
			return nil, err
		}
	}
	return reserved, nil
}

// portsOf returns the ports of a block, which begin after the first.
func portsOf(first int) ports {
	return ports{
		HTTP: first + 1, HTTPS: first + 2, DNS: first + 3, Server: first + 4,
		SerfLAN: first + 5, SerfWAN: first + 6, GRPC: first + 7, GRPCTLS: first + 8,
	}
}

// free returns why a port cannot be had at the moment.
func free(port int) error {
	tcp, err := net.Listen("tcp4", loopback(port))
	if err != nil {
		return err
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp4", loopback(port))
	if err != nil {
		return err
	}
	return udp.Close()
}
