package locality

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sync/atomic"
	"time"
)

// rereadAfter is how long the addresses of this machine are taken to be those that
// they were.
const rereadAfter = 10 * time.Second

// Listener is an address that this sluice listens on.
type Listener struct {
	Name    string
	Address netip.AddrPort // unspecified: every address of the machine, IPv4 only if it is 0.0.0.0
}

// Machine is this machine, as seen from this sluice. It is safe for concurrent use.
type Machine struct {
	listeners  atomic.Pointer[[]Listener]
	registries atomic.Pointer[[]string] // hosts
	interfaces func() ([]net.Addr, error)
	known      atomic.Pointer[addresses]
}

// addresses are those that this machine's interfaces have at one time.
type addresses struct {
	at  time.Time
	all map[netip.Addr]bool
}

// New returns this machine, with a sluice that does not listen yet and asks no
// registry.
func New() *Machine { return newMachine(net.InterfaceAddrs) }

func newMachine(interfaces func() ([]net.Addr, error)) *Machine {
	m := &Machine{interfaces: interfaces}
	m.Listen(nil)
	m.Ask(nil)
	return m
}

// Ask says at which URLs the registry is asked, such as Consul's agents. Only if one
// of them is on this machine can what a registry says of a node's address, which
// may be a loopback address, be about this machine. Names but localhost are not
// resolved.
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

// Listen says what this sluice listens on from now on.
func (m *Machine) Listen(all []Listener) {
	listeners := make([]Listener, len(all))
	for i, l := range all {
		listeners[i] = Listener{l.Name, plain(l.Address)}
	}
	m.listeners.Store(&listeners)
}

// Origin is who wants requests sent to an address.
type Origin struct {
	// Trusted says that it is the operator: any address but a listener will do.
	Trusted bool
	// Node and NodeAddress are the name and the address of the machine that the
	// address was registered on, as its registry has them; "": not known.
	Node, NodeAddress string
}

// MayConnect says why no request may go to an address; nil: it may.
func (m *Machine) MayConnect(to netip.AddrPort, from Origin) error {
	to = plain(to)
	for _, l := range *m.listeners.Load() {
		if m.reaches(to, l.Address) {
			return fmt.Errorf("%s is the listener %q of sluice itself", to, l.Name)
		}
	}
	kind := kind(to.Addr())
	switch {
	case kind == "" || from.Trusted || m.isHere(from.NodeAddress) && slices.ContainsFunc(*m.registries.Load(), m.isHere):
		return nil
	case from.NodeAddress == "":
		return fmt.Errorf("%s is a %s address, nobody knows of which machine", to.Addr(), kind)
	}
	return fmt.Errorf("%s is a %s address, and it is not known that node %s (%s) is this machine", to.Addr(), kind, from.Node, from.NodeAddress)
}

// reaches reports whether a connection to an address ends at a listener.
func (m *Machine) reaches(to, listener netip.AddrPort) bool {
	if to.Port() != listener.Port() {
		return false
	}
	ip, bound := to.Addr(), listener.Addr()
	switch {
	case ip.IsUnspecified(): // the system takes it for a loopback address
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

// read reads the addresses of the interfaces. If that fails they are those before.
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
