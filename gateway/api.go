package gateway

import (
	"encoding/json"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sluice/admin"
	"sluice/balancer/reading"
	"sluice/certificates"
	"sluice/config/chain"
	"sluice/config/live"
	"sluice/consul/mesh"
	"sluice/consul/registration"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/discovery/saved"
	"sluice/healthcheck"
	"sluice/observe/metrics"
	"sluice/observe/tracing"
	"sluice/operator"
	"sluice/proxy"
	"sluice/proxy/accesslog"
	"sluice/release"
	"sluice/route"
	"sluice/route/auth"
	"sluice/route/compression"
	"sluice/tags/claim"
)

// apiOptions are the options of the admin API, which reads all parts.
func (g *Gateway) apiOptions() admin.Options {
	return admin.Options{
		Process: admin.Process{
			Version: g.options.Version, Ready: g.readiness.now, Ordered: g.process, Certificates: g.certificates.Statuses,
		},
		Services: admin.Services{
			Pools: g.services.pools, Former: g.askFormer, Watches: g.services.discovery.Statuses, Health: g.services.healthStats,
			Series: g.series, Consul: g.registries.ask, Raw: g.registries.raw, Named: g.registries.named, Catalog: g.finder.Status,
		},
		Routes: admin.Routes{
			Table: g.table, Effective: g.effective.Load, Listeners: g.listeners.describe, Explain: g.proxy.Explain,
			Recent: g.proxy.Recent, Foresee: g.foresee,
			Tags: func() claim.Result {
				return g.tags.Present(g.history.Current().Config, g.effective.Load())
			},
			Chains: func() []admin.Chain { return g.chains.statuses(g.config()) }, Intentions: g.mesh.intentions.All,
			Keys:     func() []auth.KeySetStatus { return g.routes.Load().KeySets() },
			DeniedBy: func(service string) string { return g.mesh.deniedBy(g.config(), service) },
		},
		Fleet:     admin.Fleet{Registration: g.replica.status, Replica: g.replica.describe, Replicas: g.replica.survey, Limits: g.limits, Proofs: g.replica.proofs()},
		Documents: g.documents,
		Shares:    admin.Shares{Splits: g.judge.States, OrderShare: g.judge.Order},
		Orders:    g.orders,
		Events:    g.events,
		Metrics:   admin.Metrics(func() string { return g.config().Admin.Metrics }, g.services.pools, g.metrics()...),
		Tokens:    func() admin.Tokens { return g.admin.tokens.Load().Tokens },
		Log:       g.log,
	}
}

// metrics returns the metrics of all parts. Each part has its own, beside the values that they
// show.
func (g *Gateway) metrics() []prometheus.Collector {
	return []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		metrics.Panics(),
		admin.ProcessMetrics(g.options.Version, g.readiness.now),
		release.Metrics(g.judge.States),
		operator.Metrics(g.orders.Stats),
		reading.Metrics(g.services.pools),
		healthcheck.Metrics(g.services.health.Load, g.services.healthStats),
		discovery.Metrics(g.services.discovery.Statuses),
		saved.Metrics(g.services.snapshot.Status),
		consulsource.Metrics(g.registries.consulSets.Stats),
		registration.Metrics(g.replica.status),
		g.limits.Metrics(),
		live.Metrics(g.history, g.documents.Statuses),
		claim.Metrics(func() []claim.Problem { return g.tags.InUse().Problems }),
		chain.Metrics(g.chains.problems),
		certificates.Metrics(g.certificates.Statuses),
		mesh.IdentityMetrics(g.mesh.identity.Status),
		mesh.IntentionMetrics(g.mesh.intentions.All),
		route.Metrics(g.table),
		auth.Metrics(func() []auth.KeySetStatus { return g.routes.Load().KeySets() }),
		proxy.Metrics(g.proxy.Stats),
		compression.Metrics(g.proxy.Compression),
		accesslog.Metrics(func() uint64 { return g.requestLog.lines.Load().Dropped() }),
		tracing.Metrics(g.requestLog.spans.Read),
	}
}

// question is what a new process asks the one that it has replaced. It tells that of the orders,
// since it still serves requests of its clients.
type question struct {
	Orders map[string]operator.Order `json:"orders"`
}

// askFormer returns the peers for which the old process has requests in flight.
func (g *Gateway) askFormer() (peers []admin.Peer, err error) {
	if g.options.Former != nil {
		err = g.options.Former(question{g.orders.Store.All()}, &peers)
	}
	return peers, err
}

// Answer answers a question that the new process asks by its Options.Former.
func (g *Gateway) Answer(text json.RawMessage) (any, error) {
	var q question
	if err := json.Unmarshal(text, &q); err != nil {
		return nil, fmt.Errorf("a question of the new process: %w", err)
	}
	g.orders.Store.Replace(q.Orders)
	return admin.InFlight(g.services.pools(), g.orders.Set()), nil
}
