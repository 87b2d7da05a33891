package gateway

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"sluice/config"
)

// listener is an address that is bound.
type listener struct {
	net.Listener
	name  string // as in the configuration; "admin" for the admin API's
	admin bool
}

// Address returns where the listener of that name is bound ("admin" for the
// admin API), or nil. It tells the port where the configuration leaves that
// to the kernel.
func (g *Gateway) Address(name string) net.Addr {
	for _, l := range g.listeners {
		if l.name == name {
			return l.Addr()
		}
	}
	return nil
}

// listen binds all addresses of c. All that fail are in the error.
func (g *Gateway) listen(c *config.Config) error {
	var errs []error
	bind := func(name, address string, admin bool) {
		l, err := g.options.Listen("tcp", address)
		if err != nil {
			errs = append(errs, fmt.Errorf("listener %q: %w", name, explain(address, err)))
			return
		}
		g.listeners = append(g.listeners, listener{l, name, admin})
	}
	bind("admin", c.Admin.Address, true)
	for _, l := range c.Listeners {
		bind(l.Name, l.Address, false)
	}
	return errors.Join(errs...)
}

// explain says what stands behind the usual reasons why an address cannot be
// bound.
func explain(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is in use by another process", address)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: permission denied: ports below 1024 need the capability CAP_NET_BIND_SERVICE", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: this machine has no such address", address)
	}
	return err
}
