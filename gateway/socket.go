package gateway

import (
	"fmt"
	"net"
	"os"

	"sluice/config"
	"sluice/discovery"
)

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
	if err := os.Lchown(path, uid, gid); err != nil {
		return fmt.Errorf("owner of the unix socket: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return fmt.Errorf("permissions of the unix socket: %w", err)
	}
	return nil
}

// permitAgain is permit for a socket in use whose settings have changed. Without settings it gets
// the defaults.
func (g *Gateway) permitAgain(l net.Listener, s *config.Socket) {
	if s == nil {
		s = new(config.Socket)
	}
	if err := permit(l, s); err != nil {
		g.log.Error().Err(err).Msg("the permissions of a unix socket stay as they are")
	}
}
