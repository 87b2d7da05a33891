package gateway

import (
	"context"
	"os"
	"strings"
	"time"

	"sluice/config"
	"sluice/registration"
)

// leaveTimeout bounds how long a stop waits for Consul to take this sluice from
// its list.
const leaveTimeout = 3 * time.Second

// newRegistrar returns what registers this sluice in Consul, if the
// configuration wants that. The listeners must be bound.
func (g *Gateway) newRegistrar() *registration.Registrar {
	self := registration.Self{Version: g.options.Version, Started: time.Now()}
	self.Host, _ = os.Hostname() // what is empty is as good a name as any
	for _, l := range g.listeners {
		switch {
		case l.admin:
			self.Admin = l.Addr().String()
		case self.Listener == "":
			self.Listener = l.Addr().String()
		}
	}
	return registration.New(registration.Options{Consul: g.consul, Self: self, Ready: g.readiness, Log: g.log})
}

// registerAs puts the registration that r wants to use.
func (g *Gateway) registerAs(r config.Revision) {
	g.registrar.Set(registrationSettings(r))
}

// registrationSettings returns what r wants to be registered; nil: nothing.
func registrationSettings(r config.Revision) *registration.Settings {
	c := r.Config.Consul.Register
	if c == nil {
		return nil
	}
	s := &registration.Settings{
		Name:    c.Service,
		ID:      c.ID,
		Address: c.Address,
		Port:    c.Port,
		Tags:    c.Tags,
		Meta:    make(map[string]string, len(c.Meta)),
		Check: registration.Check{
			Type:     registration.CheckType(c.Check.Type),
			URL:      string(c.Check.URL),
			Address:  c.Check.Address,
			Interval: c.Check.Interval,
			Timeout:  c.Check.Timeout,
		},
		DeregisterAfter: c.DeregisterCriticalAfter,
		ConfigHash:      r.Hash,
	}
	for _, entry := range c.Meta {
		key, value, _ := strings.Cut(entry, "=")
		s.Meta[key] = value
	}
	return s
}

// register keeps this sluice registered in Consul from the moment that it is
// ready and warm is closed. Leave ends that and, unless another process goes on
// with it, takes the registration away.
func (g *Gateway) register(warm <-chan struct{}) (leave func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
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
		if !g.elsewhere {
			g.registrar.Leave(leaving)
		}
	}
}
