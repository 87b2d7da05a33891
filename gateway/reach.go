package gateway

import (
	"context"
	"net"
	"net/netip"
	"time"

	"sluice/discovery"
	"sluice/discovery/locality"
)

// recheckInterval is the time between two checks which addresses may be connected to: those
// of this machine may change.
const recheckInterval = 10 * time.Second

// emitMachine passes the addresses of the listeners to machine.
func (g *Gateway) emitMachine() {
	var all []locality.Listener
	add := func(name string, l net.Listener) {
		switch a := l.Addr().(type) {
		case *net.TCPAddr:
			all = append(all, locality.Listener{Name: name, Address: a.AddrPort()})
		case *net.UnixAddr:
			all = append(all, locality.Listener{Name: name, Path: a.Name})
		}
	}
	add(adminName, g.adminListener)
	for _, l := range g.allListeners() {
		add(l.config.Name, l)
	}
	g.machine.Listen(all)
}

// mayConnect returns a function that checks whether an address of an instance of the service
// may be connected to.
func (g *Gateway) mayConnect(service string) func(discovery.Instance, netip.AddrPort) error {
	return func(i discovery.Instance, to netip.AddrPort) error {
		c := g.effective.Load()
		configured := c.Services[service]
		return g.machine.MayConnect(to, locality.Origin{
			Trusted:     c.Discovery.AllowLocal || configured.NamesAddresses(),
			Node:        i.Node,
			NodeAddress: i.NodeAddress,
		})
	}
}

// recheckAddressesNow checks the addresses of all peers again.
func (g *Gateway) recheckAddressesNow() {
	for _, service := range g.services.all() {
		service.pool.RecheckAddresses()
	}
}

// recheckAddresses does so every recheckInterval, until ctx ends.
func (g *Gateway) recheckAddresses(ctx context.Context) {
	tick := time.NewTicker(recheckInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			g.recheckAddressesNow()
		case <-ctx.Done():
			return
		}
	}
}
