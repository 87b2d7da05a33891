package consul

import (
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/discovery/consul/overview"
	"sluice/observe/events"
)

// Sources creates the sources that share a client of Consul. It is safe for concurrent use.
type Sources struct {
	client    *consul.Client
	overviews *overview.Overviews
	nearness  *nearness
	shared    chan struct{} // one element per query of a watch on an overview
	log       zerolog.Logger

	// Events gets what happens to the catalog. It may be nil, and is set before the first use.
	Events *events.Feed
}

// NewSources returns sources of client.
func NewSources(client *consul.Client, log zerolog.Logger) *Sources {
	return &Sources{
		client: client, overviews: overview.New(client, log), nearness: &nearness{client: client, log: log, reading: make(chan struct{}, 1)},
		shared: make(chan struct{}, overview.Queries), log: log,
	}
}

// Source returns a source for the instances of o.Service. It may run several times, but
// not concurrently.
func (c *Sources) Source(o ServiceOptions) discovery.Source {
	o = o.normal()
	one := source{Sources: c, options: o}
	if list := o.parts(); list != nil && o.PreparedQuery == "" {
		return &parts{source: one, list: list}
	}
	return &one
}

// Stats are the cost of the sources for Consul, with all other users of their client.
type Stats struct {
	consul.Stats
	OnOverview int // of Watches, the ones on an overview
	Direct     int // of OnOverview, the ones that block because their service has just changed
}

// Stats returns the cost since the start.
func (c *Sources) Stats() Stats {
	onOverview, direct := c.overviews.Subscribers()
	return Stats{c.client.Stats(), onOverview, direct}
}

// Consistency is how current the answers of a watch must be.
// https://developer.hashicorp.com/consul/api-docs/features/consistency
type Consistency string

const (
	// ConsistencyDefault: the leader answers, or the agent from a view.
	ConsistencyDefault Consistency = "default"
	// ConsistencyStale: any server may answer, even if it lags. An answer that is older
	// than the previous one is not used.
	ConsistencyStale Consistency = "stale"
	// ConsistencyConsistent: the leader answers after a majority of the servers has confirmed that
	// it is the leader. An answer from a view only triggers such a query.
	ConsistencyConsistent Consistency = "consistent"
)

// ServiceOptions select instances of a service.
type ServiceOptions struct {
	Service string `key:"service"` // Consul's name of the service; required without PreparedQuery

	// PreparedQuery is the name or the id of a prepared query, whose result is the set
	// of instances. The query selects service, tags, health and data centres. Of the
	// fields below it uses Address, Port, CheckPort, Near, Consistency, Cached, Datacenter,
	// PassingOnly and Probation. It does not block, and is executed at the interval of its own TTL
	// (DNS.TTL, at least 1 s) or else of Poll, ± 10 %.
	PreparedQuery string        `key:"prepared_query"`
	Poll          time.Duration `key:"poll" default:"5s" min:"1s" max:"1h"`

	Tags   []string `key:"tags"`   // an instance must have all of them
	Filter string   `key:"filter"` // a filter expression for Consul
	// PassingOnly takes instances with status warning out of service. Otherwise they
	// have their warning weight.
	PassingOnly bool `key:"passing_only" default:"false"`
	// Address is the tag of the addresses to use, such as "wan": the service's address or, if the
	// service has no address of its own, its node's. Instances without it have their usual address.
	Address string `key:"address" format:"name"`
	// Port is the name of one of the ports of each instance, in place of its default port. An
	// instance without it is not used.
	Port string `key:"port" format:"name"`
	// CheckPort is likewise the name of the port that active checks connect to. Empty: the one
	// of their settings.
	CheckPort  string `key:"check_port" format:"name"`
	Datacenter string `key:"-"` // default: the agent's

	// Datacenters are data centres in order of preference, in place of Datacenter. The instances
	// are from the first one with at least MinHealthy in service, or else of the one with the most.
	// One that fails for a minute while another one answers counts as having none.
	Datacenters []string `key:"datacenters"`
	MinHealthy  int      `key:"min_healthy" default:"1" min:"1" max:"100000"`
	// Spill uses the instances of all Datacenters, each with the position of its data centre
	// as discovery.Instance.Priority. Then MinHealthy has no effect, and a data centre that
	// fails keeps its instances.
	Spill bool `key:"spill" default:"false"`
	// Nearest orders Datacenters by their distance from the agent's, nearest first. Those
	// whose distance is unknown come last.
	Nearest bool `key:"nearest" default:"false"`

	Namespace string `key:"namespace"` // default: the client's; Consul Enterprise
	Partition string `key:"partition"` // default: the client's; Consul Enterprise
	Peer      string `key:"peer"`      // a cluster peer that exports the service

	Consistency Consistency `key:"consistency" oneof:"default|stale|consistent"`
	// Cached permits a first answer from the agent's cache; not with ConsistencyConsistent.
	Cached bool `key:"cached" default:"false"`

	// Connect uses the service mesh: instances, each with an identity, are native or
	// behind sidecars.
	Connect bool `key:"connect" default:"false"`
	// ServerName is what connections to the instances ask for by TLS, with Connect.
	ServerName string `key:"-"`

	// Targets are sets of instances in place of Service; nil: none. Each has its own Namespace,
	// Partition, Peer and data centre. The first target's instances get the requests, and the
	// others stand in: Priority is the target's index, and [discovery.Instance.Target] its name.
	// A target that fails keeps its instances.
	Targets []Target `key:"-"`
	// Set is a part of the source's name, which lacks Targets: what is known of one set of targets
	// is not about another one. Empty: without effect.
	Set string `key:"-"`
	// MeshGateway is the service of which the mesh gateways are instances, in every data centre.
	MeshGateway string `key:"-"`

	Near string `key:"-"` // "_agent": sort by distance; servers answer, not the agent's view

	// Wait is how long a query blocks without a change, from 1 s to 10 min, Consul's
	// limit; required. A half-open connection to an agent whose host is up is detected
	// after Wait and a few seconds.
	Wait time.Duration `key:"-"`

	// Probation is the maximum time on probation; see discovery.Guard. 0: no probation.
	Probation time.Duration `key:"-"`
}

// normal returns o with a single data centre in Datacenter.
func (o ServiceOptions) normal() ServiceOptions {
	if len(o.Datacenters) == 1 {
		o.Datacenter, o.Datacenters = o.Datacenters[0], nil
	}
	return o
}

// NamesServices implements discovery.ServiceNamer.
func (s *source) NamesServices() {}

// String describes the selected instances. Sources with the same selection have the
// same description, also with other agents.
func (s *source) String() string {
	var b strings.Builder
	o := &s.options
	if o.PreparedQuery != "" {
		fmt.Fprintf(&b, "consul prepared query %q", o.PreparedQuery)
	} else {
		fmt.Fprintf(&b, "consul service %q", o.Service)
	}
	if o.Connect {
		b.WriteString(" through the mesh")
	}
	if o.Set != "" {
		fmt.Fprintf(&b, ", the set %q of its discovery chain", o.Set)
	}
	if len(o.Tags) > 0 {
		fmt.Fprintf(&b, ", tags %q", o.Tags)
	}
	if len(o.Datacenters) > 0 {
		fmt.Fprintf(&b, ", data centres %q", o.Datacenters)
		if o.Spill {
			b.WriteString(" together")
		}
		if o.Nearest {
			b.WriteString(", the nearest first")
		}
	}
	for _, p := range []struct{ name, value string }{
		{"filter", o.Filter}, {"address", o.Address}, {"port", o.Port}, {"port of checks", o.CheckPort}, {"data centre", o.Datacenter}, {"namespace", o.Namespace}, {"partition", o.Partition}, {"peer", o.Peer},
	} {
		if p.value != "" {
			fmt.Fprintf(&b, ", %s %q", p.name, p.value)
		}
	}
	return b.String()
}
