package admin

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/admin/fleet"
	"sluice/admin/series"
	"sluice/balancer"
	"sluice/certificates"
	"sluice/config"
	"sluice/config/live"
	"sluice/consul/mesh"
	"sluice/consul/registration"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/healthcheck"
	"sluice/observe/events"
	"sluice/operator"
	"sluice/proxy"
	"sluice/proxy/recent"
	"sluice/release"
	"sluice/route"
	"sluice/route/auth"
	"sluice/tags/claim"
)

// Options are the parts that the handler reads. All must be set. Functions are called
// concurrently and must not block unless they take a context.
type Options struct {
	Process
	Services
	Routes
	Fleet
	Documents
	Shares

	// Orders are what operators have ordered about peers.
	Orders *operator.Peers

	// Events is the feed of what happened.
	Events *events.Feed

	// Metrics has the collectors of all parts.
	Metrics prometheus.Gatherer

	// Tokens returns the tokens, one of which is required as "Authorization: Bearer …",
	// except for /, /healthz and /readyz. They may change.
	Tokens func() Tokens

	// Log gets errors that no client sees, and orders.
	Log zerolog.Logger
}

// Process is the running program.
type Process struct {
	// Version is the version of the program.
	Version string
	// Ready reports whether sluice can serve, and what is missing; see Readiness.
	Ready func() (ready bool, missing []string)
	// Ordered is what operators have ordered about it.
	Ordered *operator.Process
	// Certificates returns the state of all certificates.
	Certificates func() []certificates.Usage
}

// Services are the services and their peers.
type Services struct {
	// Pools returns the pools in use and the closed ones that still drain, in any
	// order. Several may have the same name.
	Pools func() []*balancer.Pool
	// Former returns the peers with requests in flight in the process before, if that still runs.
	Former func() ([]Peer, error)
	// Watches returns the state of every watch; see discovery.Manager.Statuses.
	Watches func() []discovery.WatchStatus
	// Health returns the health check counters by service.
	Health func() map[string]healthcheck.Stats
	// Series are the samples of what services did.
	Series *series.Recorder
	// Consul queries the instances of a service, given by sluice's name for it, with the selection
	// of its watch. The error is ErrNotInConsul for a service from another source.
	Consul func(ctx context.Context, service string) (consulsource.Answer, error)
	// Raw is Consul, and returns Consul's own answer.
	Raw func(ctx context.Context, service string) (json.RawMessage, error)
	// Named returns sluice's names for the services with a name in Consul, sorted.
	Named func(consul string) []string
	// Catalog returns the state of the catalog watch; false: not configured.
	Catalog func() (consulsource.CatalogStatus, bool)
}

// ErrNotInConsul is the error of Services.Consul for a service from another source.
var ErrNotInConsul = errors.New("the service does not come from Consul")

// Routes are the routes of requests, and who asks for them.
type Routes struct {
	// Table returns the route table in use.
	Table func() *route.Table
	// Listeners returns the listeners for clients, in any order but always the same; the caller may
	// change the slice.
	Listeners func() []Listener
	// Explain answers questions about requests.
	Explain func(proxy.Question) proxy.Explanation
	// Recent returns a sample of the requests since begin.
	Recent func(begin time.Time) []recent.Request
	// Foresee returns how requests would be served with a text in place of the document with
	// that name, or with "" in place of the configuration file. It changes nothing. Its error
	// is live.ErrNoSource, live.ErrEnded, or about the text.
	Foresee func(ctx context.Context, document, text string) (Foreseen, error)
	// Effective returns the configuration in use, with what was found in registries.
	Effective func() *config.Config
	// Tags returns the routes that tags of instances ask for, and the tags that are not
	// used as they are.
	Tags func() claim.Result
	// Chains returns the discovery chains of the services in Consul's mesh, sorted by service.
	Chains func() []Chain
	// Keys returns the state of the keys of issuers of tokens, sorted by source.
	Keys func() []auth.KeySetStatus
	// Intentions returns what Consul's intentions say about connections to services in the mesh,
	// sorted by service.
	Intentions func() []mesh.IntentionState
	// DeniedBy returns why the mesh denies connections to a service; "": it does not, or that is
	// not known.
	DeniedBy func(service string) string
}

// Fleet is this replica among the others.
type Fleet struct {
	// Registration returns the state of sluice's registration in Consul.
	Registration func() registration.Status
	// Replica returns this replica's state for the others.
	Replica func() fleet.Replica
	// Replicas queries all replicas.
	Replicas func(ctx context.Context) fleet.Report
	// Limits are the rate limits that the replicas keep together.
	Limits *fleet.Limits
	// Proofs are those of the other replicas, and of this one.
	Proofs *fleet.Proofs
}

// Documents are the documents of the configuration: a [live.Manager].
type Documents interface {
	// History returns the history of configurations.
	History() *config.History
	// Statuses returns the state of the sources of the configuration.
	Statuses() []live.Status
	// Rebuild builds the configuration of a revision again, such as one of an earlier process.
	Rebuild(config.Revision) (*config.Built, error)
	// RollBack applies the documents of the revision with a number again, if the
	// configuration in use has the hash match. why is for people.
	RollBack(ctx context.Context, number uint64, match, why string) (config.Revision, error)
}

// Shares are the splits of services with the share of one group.
type Shares struct {
	// Splits returns the state of all of them.
	Splits func() []release.State
	// OrderShare carries out an order about such a share. The error is one of the errors of
	// release.Judge.Order.
	OrderShare func(release.Order) error
}
