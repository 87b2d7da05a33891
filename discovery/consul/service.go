package consul

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"sluice/discovery"
)

const (
	defaultWait = time.Minute
	maxWait     = 10 * time.Minute // Consul's limit
	defaultPoll = 5 * time.Second
)

// Consistency is how current the answers to a watch must be.
// https://developer.hashicorp.com/consul/api-docs/features/consistency
type Consistency string

const (
	// ConsistencyDefault: the leader answers, or the agent from a stream of the
	// servers' changes.
	ConsistencyDefault Consistency = "default"
	// ConsistencyStale: any server may answer, however far behind. An answer that
	// is older than the one before is not used.
	ConsistencyStale Consistency = "stale"
	// ConsistencyConsistent: the leader answers once a majority of the servers has
	// confirmed that it is the leader. An answer from the stream is only a reason
	// to ask.
	ConsistencyConsistent Consistency = "consistent"
)

// ServiceOptions says which instances of which service.
type ServiceOptions struct {
	Service string // Consul's name of the service; required, or else PreparedQuery

	// PreparedQuery is the name or the id of a prepared query whose result are the
	// instances. It decides on the service, tags, health and data centres itself:
	// of the fields below it takes notice of Near, Consistency, Cached,
	// Datacenter, PassingOnly and Probation. Prepared queries do not block: it is executed every TTL that it has itself (its DNS.TTL, at least
	// a second), or else every Poll, give or take a tenth.
	PreparedQuery string
	Poll          time.Duration // default 5 s

	Tags       []string // an instance must have all of them
	Filter     string   // a filter expression that Consul evaluates
	Datacenter string   // default that of the agent

	// Datacenters are several data centres in order of preference, in place of
	// Datacenter: the instances are those of the first one that has at least
	// MinHealthy in service, or else of the one that has the most. One that has not
	// answered for a minute, while another one does, counts as having none.
	Datacenters []string
	MinHealthy  int // default 1

	Near      string // "_agent": sort by distance, which takes the answer from the servers instead of the agent's view
	Namespace string // default the client's; Consul Enterprise
	Partition string // default the client's; Consul Enterprise
	Peer      string // a cluster peer that exports the service

	Consistency Consistency // default ConsistencyDefault
	Cached      bool        // the first answer may come from the agent's cache; not with ConsistencyConsistent

	// PassingOnly takes instances in warning out of service, instead of giving
	// them their warning weight.
	PassingOnly bool

	// Wait is how long a query blocks while nothing changes, at most 10 min.
	// Default 1 min. A connection that hangs half-open, to an agent whose host is
	// up, is noticed after it and a few seconds.
	Wait time.Duration

	// Probation is how long instances are used, until they first fail, that Consul
	// has lost; see discovery.Guard. Default discovery.DefaultProbation; negative: not
	// at all.
	Probation time.Duration
}

func (o ServiceOptions) withDefaults() ServiceOptions {
	o.Wait = waitOf(o.Wait)
	o.Probation = max(cmp.Or(o.Probation, discovery.DefaultProbation), 0)
	o.Poll = max(cmp.Or(o.Poll, defaultPoll), time.Second)
	o.MinHealthy = max(o.MinHealthy, 1)
	if len(o.Datacenters) == 1 {
		o.Datacenter, o.Datacenters = o.Datacenters[0], nil
	}
	return o
}

// waitOf returns how long a query blocks for an option, 0 for the default.
func waitOf(option time.Duration) time.Duration {
	return min(max(cmp.Or(option, defaultWait), time.Second), maxWait)
}

// Source returns a source that watches the instances of o.Service. It may run
// many times, one at a time.
func (c *Client) Source(o ServiceOptions) discovery.Source {
	o = o.withDefaults()
	if o.PreparedQuery != "" {
		return &prepared{source{client: c, options: o, rate: queriesPerSecond}}
	}
	if len(o.Datacenters) > 1 {
		return newDatacenters(c, o)
	}
	return &source{client: c, options: o, rate: queriesPerSecond}
}

// String says what is watched. Two sources that select the same instances say
// the same, whichever agents they ask.
func (s *source) String() string { return s.options.selection() }

// selection says which instances are selected.
func (o *ServiceOptions) selection() string {
	var b strings.Builder
	if o.PreparedQuery != "" {
		fmt.Fprintf(&b, "consul prepared query %q", o.PreparedQuery)
	} else {
		fmt.Fprintf(&b, "consul service %q", o.Service)
	}
	if len(o.Tags) > 0 {
		fmt.Fprintf(&b, ", tags %q", o.Tags)
	}
	if len(o.Datacenters) > 0 {
		fmt.Fprintf(&b, ", data centres %q", o.Datacenters)
	}
	for _, p := range []struct{ name, value string }{
		{"filter", o.Filter}, {"data centre", o.Datacenter}, {"namespace", o.Namespace}, {"partition", o.Partition}, {"peer", o.Peer},
	} {
		if p.value != "" {
			fmt.Fprintf(&b, ", %s %q", p.name, p.value)
		}
	}
	return b.String()
}
