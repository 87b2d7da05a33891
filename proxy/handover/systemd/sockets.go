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

// socket is a socket that systemd has opened: a listening one, or one for UDP.
type socket struct {
	name     string // FileDescriptorName of the socket unit
	listener net.Listener
	udp      *net.UDPConn // if listener is nil
}

func (s socket) addr() net.Addr {
	if s.listener == nil {
		return s.udp.LocalAddr()
	}
	return s.listener.Addr()
}

// file returns a duplicate of the descriptor.
func (s socket) file() (*os.File, error) {
	if s.listener == nil {
		return s.udp.File()
	}
	return s.listener.(interface{ File() (*os.File, error) }).File()
}

// inherit takes the sockets of systemd. They must be listening TCP or unix sockets, or UDP sockets.
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
	defer file.Close() // the socket has a duplicate
	if conn, err := net.FilePacketConn(file); err == nil {
		if udp, ok := conn.(*net.UDPConn); ok {
			return socket{name: name, udp: udp}, nil
		}
		conn.Close()
	}
	l, err := net.FileListener(file)
	if err == nil && !slices.Contains([]string{"tcp", "unix"}, l.Addr().Network()) {
		l.Close()
		err = fmt.Errorf("it is a %s socket", l.Addr().Network())
	}
	if err != nil {
		return socket{}, fmt.Errorf("socket %q: want a listening TCP or unix socket, or a UDP socket: %w", name, err)
	}
	return socket{name: name, listener: l}, nil
}

// TakeSocket returns systemd's socket for a listener, or nil if there is none. It has the
// listener's name and, with the network "unix", its path; with "tcp", the port of the address,
// HOST:PORT, unless that is 0.
func (m *Manager) TakeSocket(name, network, address string) (net.Listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.take(name, network, address)
	if s.listener != nil {
		m.taken[s.listener] = name
	}
	return s.listener, err
}

// TakePacketSocket returns systemd's UDP socket for a listener, or nil if there is none. It has the
// listener's name and, unless that is 0, the port of the address.
func (m *Manager) TakePacketSocket(name, address string) (*net.UDPConn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.take(name, "udp", address)
	return s.udp, err
}

// PutBackPacketSocket makes a socket of TakePacketSocket, in this process or in one before, free
// for another listener. Unlike a listening one it may have been used: systemd has it open too, so
// closing it frees no address.
func (m *Manager) PutBackPacketSocket(name string, udp *net.UDPConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sockets = append(m.sockets, socket{name: name, udp: udp})
}

// take removes the socket for a listener from those that are free, and returns it; an empty one:
// there is none. The caller holds mu.
func (m *Manager) take(name, network, address string) (socket, error) {
	var others []string
	for i, s := range m.sockets {
		a := s.addr()
		if s.name != name || (a.Network() == "udp") != (network == "udp") {
			continue
		}
		if a.Network() == network && suits(a, address) {
			m.sockets = slices.Delete(m.sockets, i, i+1)
			return s, nil
		}
		others = append(others, a.String())
	}
	if others != nil {
		return socket{}, fmt.Errorf("systemd opens %s for this listener: the configuration must have the same port, or 0, or the same path, not %s",
			strings.Join(others, ", "), address)
	}
	return socket{}, nil
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
