package consul

import (
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/discovery/consul/overview"
	"sluice/observe/events"
)

// Sources creates the sources that share a client of Consul. It is safe for concurrent
// use.
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
	return &Sources{client: client, overviews: overview.New(client, log), nearness: newNearness(client, log), shared: make(chan struct{}, overview.Queries), log: log}
}

// Source returns a source for the instances of o.Service. It may run several times, but
// not concurrently.
func (c *Sources) Source(o ServiceOptions) discovery.Source {
	o = o.normal()
	if o.PreparedQuery != "" {
		return &prepared{source{Sources: c, options: o}}
	}
	if len(o.Datacenters) > 1 {
		return newDatacenters(c, o)
	}
	return &source{Sources: c, options: o}
}

// Stats are the cost of the sources for Consul, with all other users of their client.
type Stats struct {
	consul.Stats
	OnOverview int // of Watches, those on an overview
	Direct     int // of OnOverview, those whose queries block, because the service has just changed
}

// Stats returns the cost since the start.
func (c *Sources) Stats() Stats {
	onOverview, direct := c.overviews.Subscribers()
	return Stats{c.client.Stats(), onOverview, direct}
}
