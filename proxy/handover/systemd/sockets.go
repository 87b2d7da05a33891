package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
)

// socket is a listening socket that systemd has opened.
type socket struct {
	name     string // FileDescriptorName of the socket unit
	listener net.Listener
}

// inherit takes the sockets of systemd. They must be listening TCP or unix sockets.
func inherit() (sockets []socket, err error) {
	var errs []error
	for _, file := range activation.Files(true) {
		s, err := newSocket(file.Name(), file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		sockets = append(sockets, s)
	}
	return sockets, errors.Join(errs...)
}

// newSocket returns the socket with a name, and closes file.
func newSocket(name string, file *os.File) (socket, error) {
	l, err := net.FileListener(file)
	file.Close() // l has a duplicate
	if err == nil && !slices.Contains([]string{"tcp", "unix"}, l.Addr().Network()) {
		l.Close()
		err = fmt.Errorf("it is a %s socket", l.Addr().Network())
	}
	if err != nil {
		return socket{}, fmt.Errorf("socket %q: want a listening TCP or unix socket: %w", name, err)
	}
	return socket{name, l}, nil
}

// TakeSocket returns systemd's socket for a listener, or nil if there is none. It has the
// listener's name and, with the network "unix", its path; with "tcp", the port of the address,
// HOST:PORT, unless that is 0.
func (m *Manager) TakeSocket(name, network, address string) (net.Listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var others []string
	for i, s := range m.sockets {
		if s.name != name {
			continue
		}
		if a := s.listener.Addr(); a.Network() == network && suits(a, address) {
			m.sockets = slices.Delete(m.sockets, i, i+1)
			m.taken[s.listener] = name
			return s.listener, nil
		}
		others = append(others, s.listener.Addr().String())
	}
	if others != nil {
		return nil, fmt.Errorf("systemd opens %s for this listener: the configuration must have the same port, or 0, or the same path, not %s",
			strings.Join(others, ", "), address)
	}
	return nil, nil
}

// suits reports whether a bound address is the wanted one: a path, or a port, of which 0 is any.
func suits(bound net.Addr, wanted string) bool {
	if bound.Network() == "unix" {
		return bound.String() == wanted
	}
	_, port, _ := net.SplitHostPort(bound.String())
	_, wantedPort, err := net.SplitHostPort(wanted)
	return err == nil && (wantedPort == "0" || port == wantedPort)
}
