package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync/atomic"
	"syscall"

	"sluice/certificates/listeners"
	"sluice/config"
	"sluice/discovery"
	"sluice/observe/panics"
	"sluice/proxy"
)

// adminName is the name of the listener of the admin API.
const adminName = "admin"

// listener is a bound socket for clients, and its configuration. A change of the
// configuration makes a new listener, which may have the same socket.
type listener struct {
	net.Listener
	config config.Listener
	tls    *listeners.TLS // nil: without TLS
	// streams is where connections go, with protocol tcp. A reload replaces it.
	streams atomic.Pointer[proxy.Streams]

	leave func() // stops accepting, and returns when that has ended; set by serve
}

// tlsOf returns the TLS of each listener.
func tlsOf(all []*listener) []*listeners.TLS {
	list := make([]*listeners.TLS, len(all))
	for i, l := range all {
		list[i] = l.tls
	}
	return list
}

// allListeners returns the listeners for clients, in the configuration's order.
func (g *Gateway) allListeners() []*listener {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.listeners
}

// Address returns the bound address of the listener of that name ("admin" for the
// admin API), or nil. If the configured port is 0, it has the port that the kernel
// chose.
func (g *Gateway) Address(name string) net.Addr {
	if name == adminName {
		return g.adminListener.Addr()
	}
	for _, l := range g.allListeners() {
		if l.config.Name == name {
			return l.Addr()
		}
	}
	return nil
}

// listen returns the listeners of c. It reuses unchanged listeners, and the sockets of
// changed ones, and binds the others. The error contains all addresses that cannot be
// bound.
func (g *Gateway) listen(c *config.Config) (all []*listener, err error) {
	if g.adminListener == nil {
		network, address := discovery.Endpoint(c.Admin.Address)
		g.adminListener, err = g.options.Listen(adminName, network, address)
		if err == nil {
			err = permit(g.adminListener, c.Admin.Socket)
		}
		if err != nil {
			err = fmt.Errorf("listener %q: %w", adminName, g.explain(c.Admin.Address, err))
		}
	}
	errs := []error{err}
	all = make([]*listener, len(c.Listeners))
	free := slices.Clone(g.allListeners())
	add := func(i int, socket net.Listener) {
		wanted := c.Listeners[i]
		secure, err := g.certificates.TLS(wanted, c)
		if err != nil {
			errs = append(errs, fmt.Errorf("listener %q: %w", wanted.Name, err))
		}
		all[i] = &listener{Listener: socket, config: wanted, tls: secure}
	}
	take := func(same func(old, wanted config.Listener) bool) {
		for i, wanted := range c.Listeners {
			n := slices.IndexFunc(free, func(l *listener) bool { return same(l.config, wanted) })
			if all[i] != nil || n < 0 {
				continue
			}
			if all[i] = free[n]; !reflect.DeepEqual(free[n].config, wanted) || !free[n].tls.Suits(c) {
				add(i, free[n].Listener)
			}
			free = slices.Delete(free, n, n+1)
		}
	}
	take(func(old, wanted config.Listener) bool {
		return old.Address == wanted.Address && old.Name == wanted.Name
	})
	take(func(old, wanted config.Listener) bool { return old.Address == wanted.Address })
	for i, wanted := range c.Listeners {
		if all[i] != nil {
			continue
		}
		network, address := discovery.Endpoint(wanted.Address)
		l, err := g.options.Listen(wanted.Name, network, address)
		if err == nil {
			if err = permit(l, wanted.Socket); err != nil {
				g.options.Release(l)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("listener %q: %w", wanted.Name, g.explain(wanted.Address, err)))
			continue
		}
		add(i, l)
	}
	return slices.DeleteFunc(all, func(l *listener) bool { return l == nil }), errors.Join(errs...)
}

// explain describes the usual errors of binding an address.
func (g *Gateway) explain(address string, err error) error {
	network, path := discovery.Endpoint(address)
	switch {
	case network == discovery.NetworkUnix && errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s: the directory %s does not exist", address, filepath.Dir(path))
	case network == discovery.NetworkUnix:
		return err
	case errors.Is(err, syscall.EADDRINUSE):
		_, port, _ := net.SplitHostPort(address)
		for _, l := range g.allListeners() {
			if _, taken, _ := net.SplitHostPort(l.Addr().String()); taken == port {
				return fmt.Errorf("%s is in use by listener %q of this sluice: remove that one first, and add the new one then", address, l.config.Name)
			}
		}
		return fmt.Errorf("%s is in use by another process", address)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: permission denied: ports below 1024 need the capability CAP_NET_BIND_SERVICE", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: this machine has no such address", address)
	}
	return err
}

// hasSocket reports whether one of list has l's socket.
func hasSocket(list []*listener, l *listener) bool {
	return slices.ContainsFunc(list, func(other *listener) bool { return other.Listener == l.Listener })
}

// useListeners replaces the listeners by all. It serves the new ones before it leaves
// the old ones, whose connections finish.
func (g *Gateway) useListeners(all []*listener, c *config.Config) {
	g.mu.Lock()
	before := g.listeners
	g.listeners = all
	g.mu.Unlock()
	g.certificates.Use(tlsOf(all))
	g.emitMachine()
	if before == nil {
		return // Run serves them
	}
	for _, l := range all {
		if slices.Contains(before, l) {
			continue
		}
		for _, old := range before {
			if old.Listener != l.Listener {
				continue
			}
			if !reflect.DeepEqual(old.config.Socket, l.config.Socket) {
				g.permitAgain(l, l.config.Socket)
			}
			old.leave()
		}
		g.serve(l)
	}
	for _, old := range before {
		if hasSocket(all, old) {
			continue
		}
		old.leave()
		g.proxy.Drain(old.Listener, c.Shutdown.Idle, c.Shutdown.Grace)
		g.options.Release(old.Listener)
		g.log.Info().Str("listener", old.config.Name).Str("address", endpoint(old.Addr())).Msg("listener removed: its connections finish")
	}
	if g.isServing() {
		g.certificates.Obtain()
	}
}

// serve serves a listener until it is left or the proxy shuts down. It begins when the
// gateway is warm.
func (g *Gateway) serve(l *listener) {
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan struct{})
	l.leave = func() {
		cancel()
		<-left
	}
	g.log.Info().Str("listener", l.config.Name).Str("address", endpoint(l.Addr())).Msg("listening")
	g.serving.Go(func() {
		defer panics.Contain(panics.Task, nil)
		defer close(left)
		select {
		case <-g.warm:
		case <-ctx.Done():
			return
		}
		if !g.isServing() {
			return // the old process continues to serve
		}
		g.certificates.Obtain() // challenges are answered from now on
		options := l.options()
		if l.tls == nil {
			options.Challenge = g.certificates.Answer
		}
		if err := g.proxy.ServeWith(ctx, l.Listener, options); ctx.Err() == nil && !errors.Is(err, proxy.ErrServerClosed) {
			g.fail(err)
		}
	})
}

// isServing reports whether this process serves clients, or is about to: it is warm, and no old
// process serves in its place.
func (g *Gateway) isServing() bool {
	return closed(g.warm) && (!g.takingOver || g.served.Load())
}

// options returns the settings of the listener in the proxy.
func (l *listener) options() proxy.ListenerOptions {
	o := proxy.ListenerOptions{Name: l.config.Name, HTTP2: l.config.HTTP2}
	if l.config.ProxyProtocol != nil {
		o.Proxies = config.Values(l.config.ProxyProtocol.From)
	}
	if l.config.Protocol == config.ProtocolTCP {
		o.Streams = l.streams.Load
	}
	if l.tls != nil {
		o.TLS = l.tls.Config
		o.StrictTransportSecurity = strictTransportSecurity(l.config.TLS.HSTS)
	}
	if l.config.RedirectHTTPS != nil {
		o.HTTPSPort = l.config.RedirectHTTPS.Port
	}
	return o
}

// fail ends Run with err, if it is the first.
func (g *Gateway) fail(err error) {
	select {
	case g.failed <- err:
	default:
	}
}
