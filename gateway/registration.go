package gateway

import (
	"context"
	"os"
	"time"

	"sluice/config"
	"sluice/consul/registration"
	"sluice/discovery"
	"sluice/observe/panics"
)

// leaveTimeout limits how long a stop waits until the registration is removed from Consul.
const leaveTimeout = 3 * time.Second

// newRegistrar sets replica, and returns the registrar, which registers sluice in Consul if that is
// configured, and else removes the registration of the old process. The listeners must be bound.
func (g *Gateway) newRegistrar() *registration.Registrar {
	g.replica = registration.Replica{Admin: endpoint(g.adminListener.Addr()), TLS: g.started.Admin.TLS != nil, Version: g.options.Version, Started: time.Now()}
	g.replica.Host, _ = os.Hostname() // without a name it is empty
	ready := func(context.Context) (bool, []string) { return g.readiness() }
	return registration.New(registration.Options{Consul: g.consul, Self: g.replica.Self(), Ready: ready, Log: g.log})
}

// replicaName returns the name of this replica for others.
func (g *Gateway) replicaName() string { return g.registrar.Self.Owner.Value }

// registerAs applies the registration settings of r.
func (g *Gateway) registerAs(r config.Revision) {
	g.registrar.Set(registrationSettings(r, g.registeredListener(), g.replica.TLS))
}

// registeredListener returns the "host:port" of the first listener that other machines may reach;
// ":0" if all are unix sockets: then the configuration has the address.
func (g *Gateway) registeredListener() string {
	for _, l := range g.allListeners() {
		if l.Addr().Network() == discovery.NetworkTCP {
			return l.Addr().String()
		}
	}
	return ":0"
}

// register keeps sluice registered in Consul once it is ready and warm is closed. leave ends
// that, and removes the registration unless another process has taken it over.
func (g *Gateway) register(warm <-chan struct{}) (leave func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer panics.Contain(panics.Task, nil)
		defer close(ended)
		for _, wait := range []<-chan struct{}{warm, g.becameReady} {
			select {
			case <-wait:
			case <-ctx.Done():
				return
			}
		}
		g.registrar.Run(ctx)
	}()
	return func() {
		leaving, cancelLeave := context.WithTimeout(g.cut, leaveTimeout)
		defer cancelLeave()
		cancel()
		<-ended
		if !g.replaced {
			g.registrar.Leave(leaving)
		}
	}
}
