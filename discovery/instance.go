package discovery

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"sluice/discovery/locality"
)

// Status is the health of an instance in the registry. Values are sorted from best to
// worst, so that the worst of several checks is their maximum.
type Status uint8

const (
	// StatusPassing: every check passes, or there is none.
	StatusPassing Status = iota
	// StatusWarning: at least one check warns and none is critical.
	StatusWarning
	// StatusCritical: at least one check is critical.
	StatusCritical
	// StatusMaintenance: an operator put the instance or its node into
	// maintenance mode. It overrides every check.
	StatusMaintenance
)

var statuses = []string{"passing", "warning", "critical", "maintenance"}

// String returns the name of s in logs and the API.
func (s Status) String() string { return statuses[s] }

// MarshalText implements encoding.TextMarshaler.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Status) UnmarshalText(text []byte) error {
	n := slices.Index(statuses, string(text))
	if n < 0 {
		return fmt.Errorf("status %q: must be one of %q", text, statuses)
	}
	*s = Status(n)
	return nil
}

// Instance is one registered instance of a service. It is immutable once a source has
// reported it, with its slice and its map. Package saved writes it as JSON.
type Instance struct {
	Service string `json:"service"`
	ID      string `json:"id"` // unique per agent only, hence Address in the Key
	Node    string `json:"node,omitempty"`
	Address string `json:"address"` // host name or IP address, without port or brackets
	Port    int    `json:"port"`    // 1 to 65535
	// CheckPort is the port that active checks connect to; 0: as they are configured.
	CheckPort int `json:"check_port,omitempty"`
	// AddressTag is the tag of Address, if it is one of several tagged addresses.
	AddressTag string `json:"address_tag,omitempty"`
	// Socket is the absolute path of a unix socket instead of Address and Port. Only static
	// instances have it: a registry must not lead to a socket of this machine.
	Socket string `json:"socket,omitempty"`

	// NodeAddress is the address of the instance's machine, if the registry has it. A
	// loopback Address refers to that machine.
	NodeAddress string `json:"node_address,omitempty"`

	Tags []string          `json:"tags,omitempty"`
	Meta map[string]string `json:"meta,omitempty"`

	// Registered orders the registrations of a registry by the time at which they were last
	// written; 0: unknown. In Consul it is the ModifyIndex of the service.
	Registered uint64 `json:"registered,omitempty"`

	// Weight is the share of traffic with this Status; 0: no traffic.
	Weight int    `json:"weight"`
	Status Status `json:"status"`
	// Priority divides the instances into tiers: requests go to the ones with the smallest
	// Priority while these have room. 0 or more.
	Priority int `json:"priority,omitempty"`
	// Detail is the name of the check that is not passing and the start of its output,
	// in one line. It is empty for a passing instance.
	Detail string `json:"detail,omitempty"`

	Datacenter string `json:"datacenter,omitempty"`

	// ServerName is what connections to the instance ask for by TLS (SNI), and Identity who must
	// answer: a path of a SPIFFE URI, such as "/ns/default/dc/dc1/svc/web". If a peered cluster
	// exports it, Peer is the name of the peering, and Identity has whole URIs, separated by
	// spaces: one must answer. Outside of a service mesh all are empty.
	ServerName string `json:"server_name,omitempty"`
	Identity   string `json:"identity,omitempty"`
	Peer       string `json:"peer,omitempty"`

	// Target is the set of the service's instances that it is in, as of a discovery chain.
	Target string `json:"target,omitempty"`

	// Kind is empty for a service, and else what the entry is instead, such as
	// "connect-proxy": a sidecar, which has the tags of its service.
	Kind string `json:"kind,omitempty"`

	// Unchecked says that Status is critical without a result of a check: none is known
	// since the registration, or the agent that runs the checks is unreachable.
	Unchecked bool `json:"unchecked,omitempty"`
	// FirstResult is the time in which a check of an Unchecked instance must have had a result:
	// what is still Unchecked then has failed. 0: no such time is known.
	FirstResult time.Duration `json:"first_result,omitempty"`

	// Probation is the start of probation; zero: the instance is not on probation. See [Guard].
	Probation time.Time `json:"probation,omitzero"`

	// Follower: the service has a leader, which this is not, so it gets nothing. Package leader
	// sets it.
	Follower bool `json:"follower,omitempty"`

	// Failed says how an instance on probation has failed since; empty: it has not. A source
	// does not know it: it is in states that have passed a boundary, such as a restart.
	Failed string `json:"failed,omitempty"`
}

// Key identifies an instance. The same id at another address is another instance. The agent is no
// part of the key: a process may be registered with several agents; see [Normalize].
type Key struct {
	Service string
	ID      string
	Address string // "host:port", IPv6 in brackets, or "unix:/path"
	Machine string // Instance.NodeAddress if Address depends on the machine
}

// Key returns the identity of i.
func (i Instance) Key() Key {
	return Key{Service: i.Service, ID: i.ID, Address: i.HostPort(), Machine: i.machine()}
}

// HostPort returns "host:port", with an IPv6 address in brackets, or "unix:/path".
func (i Instance) HostPort() string {
	if i.Socket != "" {
		return NetworkUnix + ":" + i.Socket
	}
	return net.JoinHostPort(i.Address, strconv.Itoa(i.Port))
}

// Serving reports whether i is in service according to the registry. An instance on
// probation is not.
func (i Instance) Serving() bool {
	return i.Weight > 0 && i.Status < StatusCritical && i.Probation.IsZero()
}

// Usable reports whether requests may be sent to i: it is in service or on probation.
func (i Instance) Usable() bool { return i.Serving() || !i.Probation.IsZero() }

// WithoutFollowers returns set without the instances that have Follower.
func WithoutFollowers(set []Instance) []Instance {
	follows := func(i Instance) bool { return i.Follower }
	if !slices.ContainsFunc(set, follows) {
		return set
	}
	return slices.DeleteFunc(slices.Clone(set), follows)
}

// Equal reports whether i and o agree in every field but Registered: a registration that was
// written again and says the same is no change. A nil slice or map equals an empty one.
func (i Instance) Equal(o Instance) bool {
	return i.Service == o.Service && i.ID == o.ID && i.Node == o.Node &&
		i.Address == o.Address && i.Port == o.Port && i.CheckPort == o.CheckPort && i.AddressTag == o.AddressTag && i.Socket == o.Socket && i.NodeAddress == o.NodeAddress &&
		i.Weight == o.Weight && i.Status == o.Status && i.Priority == o.Priority && i.Detail == o.Detail &&
		i.Datacenter == o.Datacenter && i.Target == o.Target && i.ServerName == o.ServerName && i.Identity == o.Identity && i.Peer == o.Peer && i.Kind == o.Kind && i.Unchecked == o.Unchecked && i.FirstResult == o.FirstResult && i.Probation.Equal(o.Probation) && i.Failed == o.Failed && i.Follower == o.Follower &&
		slices.Equal(i.Tags, o.Tags) && maps.Equal(i.Meta, o.Meta)
}

// Member is who an instance is in a service mesh; zero: it is outside of one.
type Member struct{ ServerName, Identity, Peer string }

// Member returns who i is in a service mesh.
func (i *Instance) Member() Member { return Member{i.ServerName, i.Identity, i.Peer} }

// A Denial is why the mesh does not let sluice connect to an instance.
type Denial struct {
	Source      string // sluice's name in the mesh
	Destination string // the service
	Why         string // such as "the intention sluice → web (precedence 9)"
}

// machine returns the address of the machine if the instance's own address depends on
// the machine, such as a loopback address.
func (i Instance) machine() string {
	if locality.Ambiguous(i.Address) {
		return i.NodeAddress
	}
	return ""
}

// compareKeys orders instances by service, id, address, port and machine. It
// returns 0 exactly when the two have the same Key, without building one.
func compareKeys(a, b Instance) int {
	if order := cmp.Or(
		cmp.Compare(a.Service, b.Service),
		cmp.Compare(a.ID, b.ID),
		cmp.Compare(a.Address, b.Address),
		cmp.Compare(a.Port, b.Port),
		cmp.Compare(a.Socket, b.Socket),
	); order != 0 || a.NodeAddress == b.NodeAddress {
		return order
	}
	return cmp.Compare(a.machine(), b.machine())
}
