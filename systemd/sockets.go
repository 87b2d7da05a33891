package systemd

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
)

// socket is a listening socket that systemd has opened.
type socket struct {
	name     string // FileDescriptorName of the socket unit
	listener net.Listener
}

// inherit takes the sockets of systemd. They must be listening TCP sockets.
func inherit() (sockets []socket, err error) {
	var errs []error
	for _, file := range activation.Files(true) {
		l, err := net.FileListener(file)
		file.Close() // l has a duplicate
		if err == nil && l.Addr().Network() != "tcp" {
			l.Close()
			err = fmt.Errorf("it is a %s socket", l.Addr().Network())
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("socket %q: want a listening TCP socket: %w", file.Name(), err))
			continue
		}
		sockets = append(sockets, socket{file.Name(), l})
	}
	return sockets, errors.Join(errs...)
}

// take is TakeSocket. The caller holds mu.
func (m *Manager) take(name, address string) (net.Listener, error) {
	_, wanted, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var others []string
	for i, s := range m.sockets {
		if s.name != name {
			continue
		}
		if _, port, _ := net.SplitHostPort(s.listener.Addr().String()); wanted == "0" || port == wanted {
			m.sockets = slices.Delete(m.sockets, i, i+1)
			return s.listener, nil
		}
		others = append(others, s.listener.Addr().String())
	}
	if others != nil {
		return nil, fmt.Errorf("systemd opens %s for this listener: the configuration must have the same port, or 0, not %s",
			strings.Join(others, ", "), wanted)
	}
	return nil, nil
}
