package gateway

import (
	"context"
	"net"
	"net/netip"
	"time"

	"sluice/discovery"
	"sluice/locality"
)

// readmitEvery is how often it is asked again which peers may be connected to: the
// machine may have got other addresses.
const readmitEvery = 10 * time.Second

// listens tells the machine what this sluice listens on.
func (g *Gateway) listens() {
	var all []locality.Listener
	for _, l := range g.listeners {
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			all = append(all, locality.Listener{Name: l.name, Address: a.AddrPort()})
		}
	}
	g.machine.Listen(all)
}

// mayConnect returns what says whether connections may be opened to an address for
// a service of the configuration in use. Fixed peers are the operator's own word.
func (g *Gateway) mayConnect(service string) func(discovery.Instance, netip.AddrPort) error {
	return func(i discovery.Instance, to netip.AddrPort) error {
		c := g.effective.Load()
		return g.machine.MayConnect(to, locality.Origin{
			Trusted:     c.Consul.AllowLocal || c.Services[service].Consul == nil,
			Node:        i.Node,
			NodeAddress: i.NodeAddress,
		})
	}
}

// readmit asks again for all peers.
func (g *Gateway) readmit() {
	for _, service := range g.services.all() {
		service.pool.Readmit()
	}
}

// readmits does so from time to time, until ctx ends.
func (g *Gateway) readmits(ctx context.Context) {
	tick := time.NewTicker(readmitEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			g.readmit()
		case <-ctx.Done():
			return
		}
	}
}
