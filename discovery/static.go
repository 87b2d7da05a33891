package discovery

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
)

// MaxWeight is the largest weight of an instance.
const MaxWeight = 65535

// Static is a Source with the instances of the configuration, which are always
// passing. It is immutable.
type Static struct {
	set []Instance
}

// NewStatic returns a source with peers, as [ParsePeer] returns them, each with an id of its own.
func NewStatic(service string, peers []Instance) *Static {
	set := slices.Clone(peers)
	for i := range set {
		set[i].Service = service
	}
	return &Static{set: set}
}

var errPeer = errors.New(`want "HOST:PORT" or "HOST:PORT weight=N"`)

// ParsePeer reads "host:port" or "host:port weight=N" (default weight 1, at most [MaxWeight]; 0:
// no traffic). The host is a name, an IPv4 address, or an IPv6 address in brackets; "unix:/path"
// is a unix socket. The instance's id is its address; its service is empty.
func ParsePeer(peer string) (Instance, error) {
	fields := strings.Fields(peer)
	if len(fields) == 0 || len(fields) > 2 || len(fields[0]) > maxName {
		return Instance{}, errPeer
	}
	i := Instance{Weight: 1}
	if network, path := NetworkOf(fields[0]); network == NetworkUnix {
		i.Socket = path
	} else {
		host, text, err := net.SplitHostPort(fields[0])
		port, wrong := strconv.ParseUint(text, 10, 16)
		if err != nil || wrong != nil || host == "" || port == 0 {
			return Instance{}, errPeer
		}
		i.Address, i.Port = host, int(port)
	}
	i.ID = i.HostPort()
	if len(fields) == 2 {
		text, ok := strings.CutPrefix(fields[1], "weight=")
		weight, err := strconv.ParseUint(text, 10, 16)
		if !ok || err != nil {
			return Instance{}, errPeer
		}
		i.Weight = int(weight)
	}
	return i, nil
}

// Run reports the set once and waits for ctx to end.
func (s *Static) Run(ctx context.Context, _ WatchState, report func(Report)) error {
	report(Report{Set: s.set, Known: true})
	<-ctx.Done()
	return ctx.Err()
}

// String returns "static".
func (s *Static) String() string { return "static" }
