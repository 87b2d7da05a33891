package admin

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/config"
	"sluice/discovery"
	"sluice/discovery/consul"
	"sluice/fleet"
	"sluice/healthcheck"
	"sluice/metrics"
	"sluice/registration"
	"sluice/route"
	"sluice/snapshot"
)

// Options are the views that the handler reads. Every function is called for
// each request that needs it, by many goroutines at once, and must not block
// unless it takes a context. Where one is nil there is nothing to show.
type Options struct {
	// Version is that of the program, for sluice_build_info.
	Version string

	// Pools returns the pools in use and those that are closed and still
	// drain, in any order. Several may have the same name.
	Pools func() []*balancer.Pool

	// Watches returns the state of every watch; see discovery.Manager.Statuses.
	Watches func() []discovery.WatchStatus

	// Snapshot returns how writing the snapshot fares.
	Snapshot func() snapshot.Status

	// Table returns the route table in use.
	Table func() *route.Table

	// History is what was configured. It must not be nil.
	History *config.History

	// Consul asks Consul now for the instances of a service that the
	// configuration finds there, given by sluice's name for it, with the same
	// selection as its watch. The error is ErrNotInConsul for any other service.
	Consul func(ctx context.Context, service string) (ConsulAnswer, error)

	// ConsulStats returns what discovery costs Consul.
	ConsulStats func() consul.Stats

	// Catalog returns how finding services in Consul's catalog fares; false: none
	// are looked for.
	Catalog func() (consul.CatalogStatus, bool)

	// Registration returns how the registration of this sluice in Consul stands.
	Registration func() registration.Status

	// Replica returns what this replica tells the others of itself.
	Replica func() fleet.Replica

	// Replicas asks all replicas now.
	Replicas func(ctx context.Context) fleet.Report

	// Ready reports whether sluice can serve, and what is missing, in a few words
	// for each thing: why not, or in spite of what.
	Ready func() (ready bool, missing []string)

	// Connections returns how many client connections are open to the
	// listeners whose requests are proxied.
	Connections func() int

	// Unrouted are the counters of requests that belong to no service: no route
	// matched, or they were malformed. May be nil.
	Unrouted *metrics.Requests

	// Health returns what judging the peers of each service has counted, by
	// sluice's name for it.
	Health func() map[string]healthcheck.Stats

	// Checks returns how many active health checks run, and how many should but
	// wait.
	Checks func() (running, overdue int)

	// AccessLogDropped returns how many lines of the access log were dropped.
	AccessLogDropped func() uint64

	// Token returns the token that a request must carry as "Authorization:
	// Bearer …", except for /, /healthz and /readyz. It is asked for each
	// request, so that it may change; "" means that none is needed.
	Token func() string

	// Log gets errors that no client is told of. The zero value discards them.
	Log zerolog.Logger
}

// ConsulAnswer is what Consul says of a service at the moment.
type ConsulAnswer struct {
	Instances   []discovery.Instance // in any order
	Index       uint64
	KnownLeader bool
	LastContact time.Duration // since the answering server heard from the leader
}

// ErrNotInConsul is what Options.Consul returns for a service that does not
// come from Consul.
var ErrNotInConsul = errors.New("the service does not come from Consul")

// withDefaults returns o with something that shows nothing for each view that
// is nil.
func (o Options) withDefaults() Options {
	if o.Pools == nil {
		o.Pools = func() []*balancer.Pool { return nil }
	}
	if o.Watches == nil {
		o.Watches = func() []discovery.WatchStatus { return nil }
	}
	if o.Snapshot == nil {
		o.Snapshot = func() snapshot.Status { return snapshot.Status{} }
	}
	if o.Table == nil {
		o.Table = func() *route.Table { return new(route.Table) }
	}
	if o.Consul == nil {
		o.Consul = func(context.Context, string) (ConsulAnswer, error) { return ConsulAnswer{}, ErrNotInConsul }
	}
	if o.ConsulStats == nil {
		o.ConsulStats = func() consul.Stats { return consul.Stats{} }
	}
	if o.Catalog == nil {
		o.Catalog = func() (consul.CatalogStatus, bool) { return consul.CatalogStatus{}, false }
	}
	if o.Registration == nil {
		o.Registration = func() registration.Status { return registration.Status{} }
	}
	if o.Replica == nil {
		o.Replica = func() fleet.Replica { return fleet.Replica{} }
	}
	if o.Replicas == nil {
		o.Replicas = func(context.Context) fleet.Report { return fleet.Report{} }
	}
	if o.Ready == nil {
		o.Ready = func() (bool, []string) { return true, nil }
	}
	if o.Connections == nil {
		o.Connections = func() int { return 0 }
	}
	if o.Unrouted == nil {
		o.Unrouted = metrics.NewRequests()
	}
	if o.Health == nil {
		o.Health = func() map[string]healthcheck.Stats { return nil }
	}
	if o.Checks == nil {
		o.Checks = func() (running, overdue int) { return 0, 0 }
	}
	if o.AccessLogDropped == nil {
		o.AccessLogDropped = func() uint64 { return 0 }
	}
	if o.Token == nil {
		o.Token = func() string { return "" }
	}
	return o
}
