package consultest

import (
	"fmt"
	"io"
	"net"
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
			tcp, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				return ports{}, fmt.Errorf("pick a port: %w", err)
			}
			held = append(held, tcp)
			udp, err := net.ListenPacket("udp4", tcp.Addr().String())
			if err == nil {
				held = append(held, udp)
				*port = tcp.Addr().(*net.TCPAddr).Port
			} else if try == 20 {
				return ports{}, fmt.Errorf("pick a port: %w", err)
			}
		}
	}
	return p, nil
}
