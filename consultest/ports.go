package consultest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
)

// Agents have ports below those that systems give to connections and to
// listeners on any port (RFC 6335, section 6, and Linux's ip_local_port_range):
// else somebody might have got one while its agent was down.
const firstPort, lastPort = 10000, 32767

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

// pickPorts returns ports that are free at the moment, for TCP and for UDP, the
// one for HTTP as asked for if it is free (0: any). Another process may take one before the agent does: the caller tries again.
func pickPorts(http int) (ports, error) {
	var p ports
	var held []io.Closer
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	if tcp, err := net.Listen("tcp4", loopback(http)); err == nil {
		held = append(held, tcp)
		p.HTTP = tcp.Addr().(*net.TCPAddr).Port
	}
	for _, port := range []*int{&p.HTTP, &p.HTTPS, &p.DNS, &p.Server, &p.SerfLAN, &p.SerfWAN, &p.GRPC, &p.GRPCTLS} {
		for try := 1; *port == 0; try++ {
			n := firstPort + rand.IntN(lastPort-firstPort+1)
			tcp, err := net.Listen("tcp4", loopback(n))
			if err == nil {
				held = append(held, tcp)
				var udp net.PacketConn
				if udp, err = net.ListenPacket("udp4", loopback(n)); err == nil {
					held = append(held, udp)
					*port = n
				}
			}
			if err != nil && try == 100 {
				return ports{}, fmt.Errorf("pick a port: %w", err)
			}
		}
	}
	return p, nil
}
