package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os/user"
	"strconv"
	"strings"

	"sluice/config/decoding"
	"sluice/discovery"
)

// maxSocketPath is the number of bytes that every supported kernel accepts.
const maxSocketPath = 103

// isSocket reports whether s is unix:/PATH.
func isSocket(s string) bool {
	network, path := discovery.NetworkOf(s)
	return network == discovery.NetworkUnix && path != "/" && !strings.HasSuffix(s, "/") && len(path) <= maxSocketPath
}

// Endpoint is where to listen. An address that is not allowed has the zero value.
type Endpoint struct {
	Network, Address string // as for [net.Listen]
	Host, Port       string // of TCP
}

// parseEndpoint parses the address of a listener.
func parseEndpoint(s string) (e Endpoint, err error) {
	e.Network, e.Address = discovery.NetworkOf(s)
	if e.Network == discovery.NetworkUnix {
		if !isSocket(s) {
			err = errors.New("not the path of a socket")
		}
		return e, err
	}
	e.Host, e.Port, err = net.SplitHostPort(s)
	if err == nil && !(isPort(e.Port, 0) && (e.Host == "" || discovery.IsHost(e.Host))) {
		err = errors.New("not an address to listen on")
	}
	return e, err
}

// collides reports whether two listeners cannot be open at the same time: they are the same
// unix socket, or have the same port, and the same host or one that means all addresses.
func (e Endpoint) collides(other Endpoint) bool {
	if e.Network == discovery.NetworkUnix {
		return e == other
	}
	wildcard := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	return e.Port != "" && e.Port != "0" && e.Port == other.Port && (e.Host == other.Host || wildcard(e.Host) || wildcard(other.Host))
}

// Socket says who may connect to a unix socket.
type Socket struct {
	// Mode is the permissions of the file, in octal. Empty: 0660 with Group, else 0600.
	Mode  FileMode `key:"mode" format:"file_mode"`
	User  string   `key:"user"`  // name or number; empty: the process's
	Group string   `key:"group"` // likewise
}

// Permissions returns the mode of the file and its owner; -1: the process's.
func (s Socket) Permissions() (mode fs.FileMode, uid, gid int, err error) {
	switch {
	case s.Mode.Text != "":
		mode = s.Mode.Value
	case s.Group != "":
		mode = 0o660
	default:
		mode = 0o600
	}
	if uid, err = idOf(s.User, userID); err == nil {
		gid, err = idOf(s.Group, groupID)
	}
	return mode, uid, gid, err
}

func userID(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func groupID(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}

// idOf returns the number of a user or a group, which may be a number; -1 for "".
func idOf(name string, lookUp func(string) (string, error)) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	id, err := lookUp(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(id)
}

// parseMode returns permissions in octal.
func parseMode(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err == nil && n > 0o777 {
		err = fmt.Errorf("%s: more than 0777", s)
	}
	return fs.FileMode(n), err
}

// check checks s, which is at key and belongs to an address.
func (s *Socket) check(d *decoder, key string, of Address) {
	if s == nil {
		return
	}
	for _, field := range []struct {
		key, value string
		lookUp     func(string) (string, error)
	}{{"mode", s.Mode.Text, nil}, {"user", s.User, userID}, {"group", s.Group, groupID}} {
		if field.value == "" {
			continue
		}
		if of.Value.Network != discovery.NetworkUnix {
			d.Refuse(decoding.Join(key, field.key), field.value, "only with the address of a unix socket, such as unix:/run/sluice/admin.sock")
		} else if field.lookUp == nil {
			continue
		} else if _, err := idOf(field.value, field.lookUp); err != nil {
			d.Refuse(decoding.Join(key, field.key), field.value, "this machine has no such "+field.key+": "+err.Error())
		}
	}
}
