package discovery

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"sluice/locality"
)

// Status is the health of an instance as the registry sees it. Values grow
// from best to worst, so that the worst of several checks is their maximum.
type Status uint8

const (
	// StatusPassing: every check passes, or there is none.
	StatusPassing Status = iota
	// StatusWarning: at least one check warns and none is critical.
	StatusWarning
	// StatusCritical: at least one check is critical.
	StatusCritical
	// StatusMaintenance: an operator put the instance or its node into
	// maintenance mode. It wins over every check.
	StatusMaintenance
)

// String returns Consul's word for s.
func (s Status) String() string {
	switch s {
	case StatusPassing:
		return "passing"
	case StatusWarning:
		return "warning"
	case StatusCritical:
		return "critical"
	case StatusMaintenance:
		return "maintenance"
	}
	return "unknown"
}

// Instance is one registered instance of a service. It is a value: a source
// hands it on and nobody changes it, its slice or its map afterwards.
type Instance struct {
	Service string
	ID      string // unique per agent only, hence Address in the Key
	Node    string
	Address string // host name or IP address, without port or brackets
	Port    int    // 1 to 65535

	// NodeAddress is that of the machine which the instance runs on, as far as the
	// registry tells. A loopback address is that machine's.
	NodeAddress string

	Tags []string
	Meta map[string]string

	// Weight is the share of traffic that the registry asks for in the present
	// Status, at least 0. A weight of 0 means no traffic.
	Weight int
	Status Status
	// Detail says in one line why Status is not passing: the check's name and
	// the start of its output. It is empty for a passing instance.
	Detail string

	Datacenter string

	// Unchecked says that Status is critical though no check has found the instance so:
	// none has run since it was registered, or nobody hears of the agent that runs them.
	Unchecked bool

	// Probation is since when the registry does not list the instance in service any
	// more, if it stays in the set all the same: see [Guard]. It may be used until it
	// first fails. Zero for an instance that the registry vouches for.
	Probation time.Time
}

// Key identifies an instance. The same id at another address is another
// instance: its predecessor is drained, it starts afresh. Which agent it is
// registered with is no part of it: a process may be registered with several,
// and with another one later; see [Normalize].
type Key struct {
	Service string
	ID      string
	Address string // "host:port", IPv6 in brackets
	Machine string // Instance.NodeAddress, where Address is another place on each machine
}

// Key returns the identity of i.
func (i Instance) Key() Key {
	return Key{Service: i.Service, ID: i.ID, Address: i.HostPort(), Machine: i.machine()}
}

// HostPort returns "host:port", with an IPv6 address in brackets.
func (i Instance) HostPort() string {
	return net.JoinHostPort(i.Address, strconv.Itoa(i.Port))
}

// Serving reports whether the registry wants traffic sent to i. It does not vouch
// for what is on probation.
func (i Instance) Serving() bool {
	return i.Weight > 0 && i.Status < StatusCritical && i.Probation.IsZero()
}

// Usable reports whether requests may be sent to i: it serves or is on probation.
func (i Instance) Usable() bool { return i.Serving() || !i.Probation.IsZero() }

// Equal reports whether i and o agree in every field. A nil slice or map
// equals an empty one.
func (i Instance) Equal(o Instance) bool {
	return i.Service == o.Service && i.ID == o.ID && i.Node == o.Node &&
		i.Address == o.Address && i.Port == o.Port && i.NodeAddress == o.NodeAddress &&
		i.Weight == o.Weight && i.Status == o.Status && i.Detail == o.Detail &&
		i.Datacenter == o.Datacenter && i.Unchecked == o.Unchecked && i.Probation.Equal(o.Probation) &&
		slices.Equal(i.Tags, o.Tags) && maps.Equal(i.Meta, o.Meta)
}

// machine is what tells instances at the same address apart: the address of the
// machine, if their own means another place on each.
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
	); order != 0 || a.NodeAddress == b.NodeAddress {
		return order
	}
	return cmp.Compare(a.machine(), b.machine())
}
