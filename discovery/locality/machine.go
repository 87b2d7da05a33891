package locality

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// rereadAfter is how long the addresses of this machine are cached.
const rereadAfter = 10 * time.Second

// Listener is an address that this sluice listens on.
type Listener struct {
	Name    string
	Address netip.AddrPort // unspecified: all addresses (0.0.0.0: all of IPv4); invalid: see Path
	Path    string         // of a unix socket
}

// Machine is this machine and its sluice. It is safe for concurrent use.
type Machine struct {
	listeners  atomic.Pointer[[]Listener]
	registries atomic.Pointer[[]string] // hosts
	interfaces func() ([]net.Addr, error)
	known      atomic.Pointer[addresses]
}

// addresses are the addresses of this machine's interfaces at one time.
type addresses struct {
	at  time.Time
	all map[netip.Addr]bool
}

// New returns this machine, without listeners and registries.
func New() *Machine { return newMachine(net.InterfaceAddrs) }

func newMachine(interfaces func() ([]net.Addr, error)) *Machine {
	m := &Machine{interfaces: interfaces}
	m.Listen(nil)
	m.Ask(nil)
	return m
}

// Ask sets the URLs of the registry, such as Consul's agents. Only if one of them is on
// this machine can a loopback address of a node in the registry mean this machine.
// Names other than localhost are not resolved.
func (m *Machine) Ask(registries []string) {
	var hosts []string
	for _, registry := range registries {
		if u, err := url.Parse(registry); err == nil && u.Scheme == "unix" {
			hosts = append(hosts, "localhost")
		} else if err == nil {
			hosts = append(hosts, u.Hostname())
		}
	}
	m.registries.Store(&hosts)
}

// Listen sets the addresses that this sluice listens on.
func (m *Machine) Listen(all []Listener) {
	listeners := make([]Listener, len(all))
	for i, l := range all {
		listeners[i] = Listener{l.Name, normalize(l.Address), l.Path}
	}
	m.listeners.Store(&listeners)
}

// Origin is the origin of an address.
type Origin struct {
	// Trusted: the operator configured it. Loopback and unspecified addresses are allowed.
	Trusted bool
	// Node and NodeAddress are the name and the address of the registering machine in
	// the registry; "": unknown.
	Node, NodeAddress string
}

// MayConnect returns an error if no request may go to an address.
func (m *Machine) MayConnect(to netip.AddrPort, from Origin) error {
	to = normalize(to)
	for _, l := range *m.listeners.Load() {
		if l.Path == "" && m.reaches(to, l.Address) {
			return fmt.Errorf("%s is the listener %q of sluice itself", to, l.Name)
		}
	}
	if kind := forbidden(to.Addr()); kind != "" {
		return fmt.Errorf("%s is a %s address, to which sluice sends nothing", to.Addr(), kind)
	}
	kind := kind(to.Addr())
	switch {
	case kind == "" || from.Trusted || m.isHere(from.NodeAddress) && slices.ContainsFunc(*m.registries.Load(), m.isHere):
		return nil
	case from.NodeAddress == "":
		return fmt.Errorf("%s is a %s address of an unknown machine: want discovery.allow_local, if it is to be used", to.Addr(), kind)
	}
	return fmt.Errorf("%s is a %s address, and node %s (%s) is not known to be this machine", to.Addr(), kind, from.Node, from.NodeAddress)
}

// MayUseSocket returns an error if no request may go to the unix socket with a path: it is a
// listener.
func (m *Machine) MayUseSocket(path string) error {
	socket, err := os.Stat(path)
	if err != nil {
		return nil // nobody listens
	}
	for _, l := range *m.listeners.Load() {
		if l.Path == "" {
			continue
		}
		if own, err := os.Stat(l.Path); err == nil && os.SameFile(own, socket) {
			return fmt.Errorf("%s is the listener %q of sluice itself", path, l.Name)
		}
	}
	return nil
}

// reaches reports whether a connection to an address reaches a listener.
func (m *Machine) reaches(to, listener netip.AddrPort) bool {
	if to.Port() != listener.Port() {
		return false
	}
	ip, bound := to.Addr(), listener.Addr()
	switch {
	case ip.IsUnspecified(): // the system connects to a loopback address
		return bound.IsLoopback() || bound.IsUnspecified()
	case !bound.IsUnspecified():
		return ip == bound
	case bound.Is4() && !ip.Is4():
		return false
	}
	return ip.IsLoopback() || m.has(ip)
}

// isHere reports whether a host, an address or localhost, is this machine.
func (m *Machine) isHere(host string) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return isLocalhost(host)
	}
	ip = ip.Unmap().WithZone("")
	return ip.IsLoopback() || m.has(ip)
}

// has reports whether an interface of this machine has the address.
func (m *Machine) has(ip netip.Addr) bool {
	known := m.known.Load()
	if known == nil || time.Since(known.at) > rereadAfter {
		known = m.read(known)
	}
	return known.all[ip]
}

// read reads the addresses of the interfaces. On an error the previous ones stay.
func (m *Machine) read(before *addresses) *addresses {
	next := &addresses{at: time.Now(), all: make(map[netip.Addr]bool)}
	found, err := m.interfaces()
	if err != nil && before != nil {
		next.all = before.all
	}
	for _, a := range found {
		if network, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(network.IP); ok {
				next.all[ip.Unmap()] = true
			}
		}
	}
	m.known.Store(next)
	return next
}
