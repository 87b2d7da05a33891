package consul

import (
	"cmp"
	"strings"
)

// Target is a set of instances that a discovery chain names.
type Target struct {
	Service, Subset, Filter                string // Filter is the subset's, for Consul
	Namespace, Partition, Datacenter, Peer string // Datacenter is empty for the agent's own

	OnlyPassing bool   // as ServiceOptions.PassingOnly
	SNI         string // what a connection asks for; empty for a Peer, whose instances say it
	Gateway     string // mode of mesh gateways: "", "none", "local" or "remote"
	External    bool   // outside of the mesh: SNI is from service-defaults
}

// name returns what Consul calls the target, without what is the default.
func (t *Target) name() string {
	words := make([]string, 0, 6)
	for _, word := range []string{t.Subset, t.Service, notDefault(t.Namespace), notDefault(t.Partition), t.Datacenter} {
		if word != "" {
			words = append(words, word)
		}
	}
	if t.Peer != "" {
		words = append(words, "external", t.Peer)
	}
	return strings.Join(words, ".")
}

// notDefault returns name, or "" for the default namespace or partition.
func notDefault(name string) string {
	if name == "default" {
		return ""
	}
	return name
}

// of returns the options of a target.
func (o ServiceOptions) of(t Target) ServiceOptions {
	o.Targets = nil
	o.Service, o.Datacenter, o.Peer, o.ServerName = t.Service, t.Datacenter, t.Peer, t.SNI
	o.Namespace, o.Partition = cmp.Or(t.Namespace, o.Namespace), cmp.Or(t.Partition, o.Partition)
	o.PassingOnly = o.PassingOnly || t.OnlyPassing
	o.Filter = both(o.Filter, t.Filter)
	if t.Datacenter != "" || t.Peer != "" {
		o.Address = cmp.Or(o.Address, wanAddress) // as Consul's own proxies
	}
	return o
}

// wanAddress is the tag of the addresses that other data centres reach.
const wanAddress = "wan"

// both returns the filter expression that selects what a and b select.
func both(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return "(" + a + ") and (" + b + ")"
}
