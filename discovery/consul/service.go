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

	defaultEmptyHold = 30 * time.Second
)

// ServiceOptions says which instances of which service.
type ServiceOptions struct {
	Service    string   // Consul's name of the service; required
	Tags       []string // an instance must have all of them
	Filter     string   // a filter expression that Consul evaluates
	Datacenter string   // default that of the agent
	Near       string   // sort by distance from this node; "_agent": the agent's own
	Namespace  string   // default the client's; Consul Enterprise
	Partition  string   // default the client's; Consul Enterprise
	Peer       string   // a cluster peer that exports the service

	// PassingOnly takes instances in warning out of service, instead of giving
	// them their warning weight.
	PassingOnly bool

	// Wait is how long a query blocks while nothing changes, at most 10 min.
	// Default 1 min. A connection that hangs half-open, to an agent whose host is
	// up, is noticed after it and a few seconds.
	Wait time.Duration

	// EmptyHold is how long instances are kept that vanished in a way that does
	// not look like the truth; see the package comment. Default 30 s; negative:
	// not at all.
	EmptyHold time.Duration
}

func (o ServiceOptions) withDefaults() ServiceOptions {
	o.Wait = min(max(cmp.Or(o.Wait, defaultWait), time.Second), maxWait)
	o.EmptyHold = max(cmp.Or(o.EmptyHold, defaultEmptyHold), 0)
	return o
}

// Source returns a source that watches the instances of o.Service. It may run
// many times, one at a time.
func (c *Client) Source(o ServiceOptions) discovery.Source {
	return &source{client: c, options: o.withDefaults(), rate: queriesPerSecond}
}

// String says what is watched. Two sources that select the same instances say
// the same, whichever agents they ask.
func (s *source) String() string { return s.options.selection() }

// selection says which instances are selected.
func (o *ServiceOptions) selection() string {
	var b strings.Builder
	fmt.Fprintf(&b, "consul service %q", o.Service)
	if len(o.Tags) > 0 {
		fmt.Fprintf(&b, ", tags %q", o.Tags)
	}
	for _, p := range []struct{ name, value string }{
		{"filter", o.Filter}, {"datacenter", o.Datacenter}, {"namespace", o.Namespace}, {"partition", o.Partition}, {"peer", o.Peer},
	} {
		if p.value != "" {
			fmt.Fprintf(&b, ", %s %q", p.name, p.value)
		}
	}
	return b.String()
}
