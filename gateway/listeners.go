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
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"sluice/admin"
	listenertls "sluice/certificates/listeners"
	"sluice/config"
	"sluice/discovery"
	"sluice/discovery/locality"
	"sluice/observe/panics"
	"sluice/observe/wake"
	"sluice/proxy"
	"sluice/proxy/http3"
	"sluice/proxy/packets"
)

// adminName is the name of the listener of the admin API.
const adminName = "admin"

// listeners are the bound sockets, of clients and of the admin API. Their methods may be called
// concurrently, except open and apply, which only the goroutine that applies configurations calls.
type listeners struct {
	// These four are the options of the same names.
	listen        func(name, network, address string) (net.Listener, error)
	release       func(l net.Listener, used bool)
	listenPacket  func(name, address string) (*packets.Socket, error)
	releasePacket func(*packets.Socket)
	certificates  *listenertls.Manager
	proxy         *proxy.Server
	machine       *locality.Machine
	upgrade       *upgrade
	fail          func(error) // ends Run
	log           zerolog.Logger

	ending  map[string]*http3.Endpoint // that were removed, by their address; of apply and open
	admin   net.Listener               // of the admin API
	serving sync.WaitGroup             // goroutines that serve clients

	mu    sync.Mutex  // guards the field below
	inUse []*listener // for clients; the slice is replaced, not changed
}

// listener is a bound socket for clients, and its configuration. A change of the
// configuration makes a new listener, which may have the same socket. With HTTP/3 there are two
// listeners, with a socket of TCP and one of UDP, which is an endpoint.
type listener struct {
	net.Listener
	config config.Listener
	tls    *listenertls.TLS // nil: without TLS
	// streams is where connections go, with protocol tcp. A reload replaces it. Former listeners
	// for the same clients have the same one: their connections may still wait for a server name.
	streams *atomic.Pointer[proxy.Streams]

	endpoint   *http3.Endpoint // with HTTP/3, of both listeners
	address    string          // of an endpoint, as it was asked for
	clearUntil time.Time       // until then, clients are told that there is no HTTP/3 any more

	leave func() // stops accepting, and returns when that has ended; set by serve
}

// forSameClients reports whether connections of before differ from those of l only in where they
// go.
func (l *listener) forSameClients(before *listener) bool {
	a, b := l.config, before.config
	a.Service, a.SNI, a.Streams = b.Service, b.SNI, b.Streams
	return reflect.DeepEqual(a, b)
}

func tlsOf(all []*listener) []*listenertls.TLS {
	list := make([]*listenertls.TLS, len(all))
	for i, l := range all {
		list[i] = l.tls
	}
	return list
}

// namesOf returns the names of listeners by their sockets, which may have had other ones.
func namesOf(all []*listener) map[net.Listener]string {
	names := make(map[net.Listener]string, len(all))
	for _, l := range all {
		names[l.Listener] = l.config.Name
	}
	return names
}

// all returns the listeners for clients, in the configuration's order.
func (ls *listeners) all() []*listener {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.inUse
}

// reachable returns the "host:port" of the first listener that other machines may reach; ":0" if
// all are unix sockets.
func (ls *listeners) reachable() string {
	for _, l := range ls.all() {
		if l.Addr().Network() == discovery.NetworkTCP {
			return l.Addr().String()
		}
	}
	return ":0"
}

// open returns the listeners of c, in its order, and then those of HTTP/3. It reuses unchanged
// listeners of have, and the sockets of changed ones, and binds the others. The error contains all
// addresses that cannot be bound.
func (ls *listeners) open(c *config.Config, have []*listener) (all []*listener, err error) {
	if ls.admin == nil {
		ls.admin, err = ls.bind(adminName, c.Admin.Address)
	}
	errs := []error{err}
	all = make([]*listener, len(c.Listeners))
	free := slices.DeleteFunc(slices.Clone(have), func(l *listener) bool { return endpointOf(l) != nil })
	add := func(i int, socket net.Listener, before *listener) {
		l := &listener{Listener: socket, config: c.Listeners[i], streams: before.streams}
		if !l.forSameClients(before) {
			l.streams = new(atomic.Pointer[proxy.Streams])
		}
		var err error
		if l.tls, err = ls.certificates.TLS(l.config, c, before.tls); err != nil {
			errs = append(errs, fmt.Errorf("listener %q: %w", l.config.Name, err))
		}
		l.clearAfter(before)
		all[i] = l
	}
	take := func(same func(old, wanted config.Listener) bool) {
		for i, wanted := range c.Listeners {
			n := slices.IndexFunc(free, func(l *listener) bool { return same(l.config, wanted) })
			if all[i] != nil || n < 0 {
				continue
			}
			if all[i] = free[n]; !reflect.DeepEqual(free[n].config, wanted) || !free[n].tls.Suits(c) {
				add(i, free[n].Listener, free[n])
			}
			free = slices.Delete(free, n, n+1)
		}
	}
	take(func(old, wanted config.Listener) bool {
		return old.Address == wanted.Address && old.Name == wanted.Name
	})
	take(func(old, wanted config.Listener) bool { // with port 0, the name says which socket of systemd it is
		return old.Address == wanted.Address && wanted.Address.Value.Port != "0"
	})
	for i, wanted := range c.Listeners {
		if all[i] != nil {
			continue
		}
		l, err := ls.bind(wanted.Name, wanted.Address)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		add(i, l, new(listener))
	}
	endpoints, err := ls.openEndpoints(all, have)
	errs = append(errs, err)
	all = slices.DeleteFunc(all, func(l *listener) bool { return l == nil })
	return append(all, endpoints...), errors.Join(errs...)
}

func (ls *listeners) bind(name string, address config.Address) (net.Listener, error) {
	l, err := ls.listen(name, address.Value.Network, address.Value.Address)
	if err != nil {
		return nil, fmt.Errorf("listener %q: %w", name, ls.explain(address, err))
	}
	return l, nil
}

// permit sets who may connect to the sockets of all that are not in use yet; before any is, also to
// the admin API's. Another process may have made them, or serve them, so nothing else may refuse
// the configuration after it.
func (ls *listeners) permit(all []*listener, admin *config.Socket) error {
	inUse := ls.all()
	if inUse == nil {
		if err := permit(ls.admin, admin); err != nil {
			return fmt.Errorf("listener %q: %w", adminName, err)
		}
	}
	for _, l := range all {
		if hasSocket(inUse, l) {
			continue
		}
		if err := permit(l, l.config.Socket); err != nil {
			return fmt.Errorf("listener %q: %w", l.config.Name, err)
		}
	}
	return nil
}

// discard closes what open has bound, if it is not used.
func (ls *listeners) discard(all []*listener) {
	for _, l := range all {
		switch {
		case hasSocket(ls.all(), l):
		case endpointOf(l) != nil:
			ls.releaseEndpoint(l)
		default:
			ls.release(l.Listener, false)
		}
	}
}

// explain describes the usual errors of binding an address.
func (ls *listeners) explain(address config.Address, err error) error {
	at := address.Value
	switch {
	case at.Network == discovery.NetworkUnix && errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s: the directory %s does not exist", address, filepath.Dir(at.Address))
	case at.Network == discovery.NetworkUnix:
		return err
	case errors.Is(err, syscall.EADDRINUSE):
		for _, l := range ls.all() {
			if _, taken, _ := net.SplitHostPort(l.Addr().String()); taken == at.Port {
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

// apply replaces the listeners by all. It serves the new ones before it leaves
// the old ones, whose connections finish.
func (ls *listeners) apply(all []*listener, c *config.Config) {
	ls.mu.Lock()
	before := ls.inUse
	ls.inUse = all
	ls.mu.Unlock()
	ls.certificates.Use(tlsOf(all))
	ls.emitMachine()
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
				ls.permitAgain(l, l.config.Socket)
			}
			old.leave()
		}
		ls.serve(l)
	}
	for _, old := range before {
		if hasSocket(all, old) {
			continue
		}
		old.leave()
		ls.proxy.Drain(old.Listener, c.Shutdown.Idle, c.Shutdown.Grace)
		if endpointOf(old) != nil {
			ls.releaseEndpoint(old)
		} else {
			ls.release(old.Listener, true)
		}
		ls.log.Info().Str("listener", old.config.Name).Str("network", old.Addr().Network()).Str("address", endpoint(old.Addr())).Msg("listener removed: its connections finish")
	}
	if ls.upgrade.serves() {
		ls.certificates.Obtain()
	}
}

// serve serves a listener until it is left or the proxy shuts down. It begins when the
// gateway is warm.
func (ls *listeners) serve(l *listener) {
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan struct{})
	l.leave = func() {
		cancel()
		<-left
	}
	ls.log.Info().Str("listener", l.config.Name).Str("network", l.Addr().Network()).Str("address", endpoint(l.Addr())).Msg("listening")
	if e := endpointOf(l); e != nil && e.Counts().HasSmallBuffer() {
		ls.log.Warn().Str("listener", l.config.Name).Int("bytes", e.Counts().ReceiveBytes).
			Msg("the kernel's buffer for HTTP/3 is small: raise net.core.rmem_max and wmem_max, or packets are lost under load")
	}
	ls.serving.Go(func() {
		defer panics.Contain(panics.Task, nil)
		defer close(left)
		if wake.Await(ctx, ls.upgrade.warm) != nil {
			return
		}
		if !ls.upgrade.serves() {
			return // the old process continues to serve
		}
		ls.certificates.Obtain() // challenges are answered from now on
		if err := ls.proxy.Serve(ctx, l.Listener, ls.options(l)); ctx.Err() == nil && !errors.Is(err, proxy.ErrServerClosed) {
			ls.fail(err)
		}
	})
}

// describe returns the listeners for clients as the admin API shows them.
func (ls *listeners) describe() (all []admin.Listener) {
	for _, l := range ls.all() {
		if endpointOf(l) != nil {
			continue
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		all = append(all, admin.Listener{ListenerOptions: ls.options(l), Port: port})
	}
	return all
}

// options returns the settings of a listener in the proxy.
func (ls *listeners) options(l *listener) proxy.ListenerOptions {
	o := proxy.ListenerOptions{Name: l.config.Name, HTTP2: l.config.HTTP2}
	if l.config.ProxyProtocol != nil {
		o.Proxies = config.Values(l.config.ProxyProtocol.From)
	}
	if l.config.Protocol == config.ProtocolTCP {
		o.Streams = l.streams.Load
	}
	if l.tls == nil {
		o.Challenge = ls.certificates.AnswerChallenge
	} else {
		o.TLS = l.tls.Config
		o.Revocations = l.tls.Revocations
		o.StrictTransportSecurity = strictTransportSecurity(l.config.TLS.HSTS)
		o.AltSvc = l.altSvc()
	}
	if l.config.RedirectHTTPS != nil {
		o.HTTPSPort = l.config.RedirectHTTPS.Port
	}
	return o
}

// emitMachine passes the addresses of the listeners to machine.
func (ls *listeners) emitMachine() {
	var all []locality.Listener
	add := func(name string, l net.Listener) {
		switch a := l.Addr().(type) {
		case *net.TCPAddr:
			all = append(all, locality.Listener{Name: name, Address: a.AddrPort()})
		case *net.UnixAddr:
			all = append(all, locality.Listener{Name: name, Path: a.Name})
		}
	}
	add(adminName, ls.admin)
	for _, l := range ls.all() {
		add(l.config.Name, l)
	}
	ls.machine.Listen(all)
}

// close closes all sockets. The proxy must have been shut down.
func (ls *listeners) close() {
	for _, l := range ls.all() {
		_ = l.Close() // the proxy has closed the ones that it served
	}
	if ls.admin != nil {
		_ = ls.admin.Close()
	}
}

// endpoint returns an address as the configuration has it.
func endpoint(a net.Addr) string {
	if a.Network() == discovery.NetworkUnix {
		return discovery.NetworkUnix + ":" + a.String()
	}
	return a.String()
}

// permit sets who may connect to l, if it is a unix socket. Without settings the file stays as
// it was made, by sluice for the user of the process only, or by systemd.
func permit(l net.Listener, s *config.Socket) error {
	if l.Addr().Network() != discovery.NetworkUnix || s == nil {
		return nil
	}
	path := l.Addr().String()
	mode, uid, gid, err := s.Permissions()
	if err != nil {
		return fmt.Errorf("unix socket %s: %w", path, err)
	}
	if uid >= 0 || gid >= 0 { // else a process that may change no owner needs not
		if err := os.Lchown(path, uid, gid); err != nil {
			return fmt.Errorf("owner of the unix socket: %w", err)
		}
	}
	if err := os.Chmod(path, mode); err != nil {
		return fmt.Errorf("permissions of the unix socket: %w", err)
	}
	return nil
}

// permitAgain is permit for a socket in use whose settings have changed. Without settings it gets
// the defaults.
func (ls *listeners) permitAgain(l net.Listener, s *config.Socket) {
	if s == nil {
		s = new(config.Socket)
	}
	if err := permit(l, s); err != nil {
		ls.log.Error().Err(err).Msg("the permissions of a unix socket stay as they are")
	}
}
