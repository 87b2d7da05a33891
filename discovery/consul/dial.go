package consul

import (
	"context"
	"net"
)

// WithDial returns o with a dial of its own in place of the network: for tests
// whose Consul is in memory, such as discoverytest.ServePipe.
func (o ClientOptions) WithDial(dial func(ctx context.Context, network, address string) (net.Conn, error)) ClientOptions {
	o.dial = dial
	return o
}
