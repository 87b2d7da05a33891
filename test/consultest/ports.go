package consultest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"

	"sluice/test/verify"
)

// All ports are below the range from which systems assign ports (RFC 6335, section 6, and
// ip_local_port_range of Linux). A port of that range could be assigned while its agent starts or
// does not run. Blocks and listeners have a range each: a listener could take a port that another
// process has reserved and does not use yet.
const firstBlock, firstListener, end = 10000, 25000, 32768

const (
	blockSize = 10  // ports per agent: the used ones, and the first
	maxTries  = 100 // limit of blocks or ports that are reserved or in use
)

// ports contains the ports of one agent, with the names of Consul.
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

// reserve returns free ports for TCP and UDP. No other process with this package uses them
// until reserved is closed, also while the agent does not run. http is the preferred port for
// HTTP; 0: any.
func reserve(http int) (p ports, reserved io.Closer, err error) {
	for try := 1; ; try++ {
		first := firstBlock + blockSize*rand.IntN((firstListener-firstBlock)/blockSize)
		if reserved, err = reserveBlock(first); err == nil {
			p = portsOf(first)
			break
		}
		if try == maxTries {
			return ports{}, nil, fmt.Errorf("reserve ports: %w", err)
		}
	}
	if http != 0 && free(http) == nil {
		p.HTTP = http
	}
	return p, reserved, nil
}

// ReservePort returns a free port of 127.0.0.1, which stays reserved among test processes
// until t ends. It is outside the range from which the system assigns ports.
func ReservePort(t testing.TB) int {
	t.Helper()
	p, reserved, err := reserve(0)
	verify.NoError(t, err)
	t.Cleanup(func() { reserved.Close() })
	return p.HTTP
}

// ReserveBlock returns the first of nine free ports of 127.0.0.1 in a row, as ReservePort does,
// until reserved is closed.
func ReserveBlock() (first int, reserved io.Closer, err error) {
	p, reserved, err := reserve(0)
	return p.HTTP, reserved, err
}

// Listen listens on a port of 127.0.0.1 that the system assigns to nobody, and that it has not
// returned before. After the end of the listener, checks of Consul may still connect to the port:
// they reach no other test, and no later listener of this one. It is safe for concurrent use.
func Listen() (*net.TCPListener, error) {
	for try := 1; ; try++ {
		port := firstListener + rand.IntN(end-firstListener)
		if _, used := usedPorts.LoadOrStore(port, true); used {
			continue
		}
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err == nil || try == maxTries {
			return l, err
		}
	}
}

// usedPorts are the ports that Listen has tried.
var usedPorts sync.Map

// reserveBlock reserves the ports from first on. The process that listens on the first port has the
// block.
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

// free returns an error if a port is in use. No process starts meanwhile: it would have the
// port, as a copy of this process, until it becomes its program.
func free(port int) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
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
