package admin

import (
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/healthcheck"
	"sluice/metrics"
)

// newMetrics returns the handler of /metrics. It has a registry of its own, so
// that several handlers can be in one process.
func (h *handler) newMetrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		newCollector(h),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		ErrorHandling:     promhttp.ContinueOnError, // half the metrics are better than none
		ErrorLog:          gatherLog{h.Log},
	})
}

// gatherLog logs what is wrong with a metric.
type gatherLog struct{ zerolog.Logger }

func (l gatherLog) Println(v ...any) { l.Error().Msg(strings.TrimSpace(fmt.Sprintln(v...))) }

// collector makes every series anew from what the views show at the time of
// the scrape. So no request updates a metric, and the series of a service or a
// peer end with it.
type collector struct {
	h      *handler
	bounds []float64 // of the latency buckets, in seconds
}

func newCollector(h *handler) *collector {
	return &collector{h, metrics.BucketBounds()}
}

// descriptions are all that collector may send.
var descriptions []*prometheus.Desc

// describe declares a metric. docs/metrics.md lists all of them.
func describe(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("sluice_"+name, help, labels, nil)
	descriptions = append(descriptions, d)
	return d
}

var (
	buildInfo = describe("build_info", "Always 1; the labels are the versions.", "version", "go_version")
	readyDesc = describe("ready", "1 if sluice can serve, else 0.")

	requestsTotal   = describe("requests_total", "Requests that ended, by class of the status sent to the client.", "service", "class")
	requestDuration = describe("request_duration_seconds", "Time from a request's arrival to the end of its response.", "service")
	retriesTotal    = describe("retries_total", "Attempts beyond the first of a request.", "service")
	refusalsTotal   = describe("refusals_total", "Attempts that a limit of the service stopped.", "service", "limit")
	pendingDesc     = describe("requests_pending", "Requests that wait until a service has a peer for them.", "service")
	receivedBytes   = describe("request_body_bytes_total", "Octets of request bodies received from clients.", "service")
	sentBytes       = describe("response_body_bytes_total", "Octets of response bodies sent to clients.", "service")
	unroutedTotal   = describe("unrouted_requests_total", "Requests that belong to no service: no route matched, or they were malformed.", "class")
	inflightDesc    = describe("requests_in_flight", "Attempts in flight to all peers of a service.", "service")

	peersDesc    = describe("peers", "Peers by state.", "service", "state")
	eligibleDesc = describe("peers_eligible", "Peers that requests go to.", "service")
	panicDesc    = describe("panic", "1 while a service has too few eligible peers, so that others are used too, else 0.", "service")
	tierShare    = describe("tier_share", "Share of a service's requests that go to a tier of its peers, 0 to 1; 0 is the first tier.", "service", "tier")

	peerInflight = describe("peer_requests_in_flight", "Attempts in flight to a peer.", "service", "node", "id", "address")
	peerAttempts = describe("peer_attempts_total", "Attempts on a peer that ended, by outcome.", "service", "node", "id", "address", "outcome")
	peerLatency  = describe("peer_latency_seconds", "Moving average of a peer's time to the head of a response, in which peaks weigh more.", "service", "node", "id", "address")

	checksTotal     = describe("health_checks_total", "Active health checks of peers, by result.", "service", "result")
	checksRunning   = describe("health_checks_running", "Active health checks that run.")
	checksOverdue   = describe("health_checks_overdue", "Active health checks that should run but wait, because health.max_checks do.")
	ejectionsTotal  = describe("ejections_total", "Peers that were ejected, by the setting that did it.", "service", "cause")
	ejectionsDenied = describe("ejections_refused_total", "Peers that were not ejected although they should, because too many were.", "service")

	discoveryState     = describe("discovery_state", "1 for the present state of a service's watch, 0 for the others.", "service", "state")
	discoveryIndex     = describe("discovery_index", "Index of the registry's last answer.", "service")
	discoveryInstances = describe("discovery_instances", "Instances in the last set from the registry.", "service")
	discoveryProbation = describe("discovery_probation_instances", "Of them, those that the registry has lost, and which are used until they first fail.", "service")
	discoveryRestored  = describe("discovery_restored", "1 if the set in use is the snapshot's because the registry has not answered since the start, else 0.", "service")
	discoverySuccess   = describe("discovery_last_success_timestamp_seconds", "When the registry last answered, as Unix time.", "service")
	discoveryChange    = describe("discovery_last_change_timestamp_seconds", "When a changed set was last applied, as Unix time.", "service")
	discoveryQueries   = describe("discovery_queries_total", "Queries to the registry, answered or not.", "service")
	discoveryErrors    = describe("discovery_errors_total", "Queries to the registry that failed.", "service")
	discoveryChanges   = describe("discovery_changes_total", "Changed sets that were applied.", "service")

	consulRequests    = describe("consul_queries_total", "Requests that were sent to Consul, probes of its agents included.")
	consulErrors      = describe("consul_errors_total", "Of them, those that had no answer, or an error for an answer.")
	consulLimited     = describe("consul_rate_limited_total", "Of these, the answers 429: the agent limits what one client address may send.")
	consulReceived    = describe("consul_received_bytes_total", "Octets received from Consul, with headers and TLS.")
	consulSent        = describe("consul_sent_bytes_total", "Octets sent to Consul, with headers and TLS.")
	consulConnections = describe("consul_connections", "Connections to Consul that are open.")
	consulOpened      = describe("consul_connections_opened_total", "Connections to Consul that were opened.")
	consulLimit       = describe("consul_query_limit", "Queries to Consul that may be in flight; fewer after an answer 429.")
	consulWatches     = describe("consul_watches", "Watched services, by how a change is seen.", "by")

	configRevision = describe("config_revision", "Number of the configuration in use.")
	configApplied  = describe("config_last_applied_timestamp_seconds", "When the configuration in use was applied, as Unix time.")
	configOK       = describe("config_last_reload_successful", "0 if the latest configuration was refused, else 1.")
	configReloads  = describe("config_reloads_total", "Configurations loaded, by result.", "result")

	snapshotWritten = describe("snapshot_last_write_timestamp_seconds", "When the snapshot was last written, as Unix time.")
	snapshotErrors  = describe("snapshot_errors_total", "Attempts to write the snapshot that failed.")

	registeredDesc     = describe("registered", "1 if sluice is registered in Consul, else 0; absent if it is not to be.", "service")
	registrationsTotal = describe("registrations_total", "Times that an agent of Consul took the registration of sluice.", "service")
	registrationErrors = describe("registration_errors_total", "Attempts to register sluice in Consul, or to make sure that it is, that failed.", "service")

	connectionsOpen = describe("client_connections", "Client connections that are open.")
	logDropped      = describe("access_log_dropped_lines_total", "Lines of the access log that were dropped because the output was too slow or failed.")
)

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descriptions {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	e := emitter{ch}
	e.gauge(buildInfo, 1, c.h.Version, runtime.Version())
	ready, _ := c.h.Ready()
	e.gauge(readyDesc, number(ready))
	for _, r := range c.h.readings() {
		c.requests(e, r)
		c.peers(e, r)
	}
	unrouted := c.h.Unrouted.Snapshot()
	for class := range classes {
		e.counter(unroutedTotal, float64(unrouted.Class(class)), class.String())
	}
	c.health(e)
	for _, s := range c.h.Watches() {
		c.discovery(e, s)
	}
	c.consul(e)
	c.registration(e)
	snapshot := c.h.Snapshot()
	e.timestamp(snapshotWritten, snapshot.Written)
	e.counter(snapshotErrors, float64(snapshot.Errors))
	c.config(e)
	e.gauge(connectionsOpen, float64(c.h.Connections()))
	e.counter(logDropped, float64(c.h.AccessLogDropped()))
}

func (c *collector) requests(e emitter, r *reading) {
	for class := range classes {
		e.counter(requestsTotal, float64(r.requests.Class(class)), r.service, class.String())
	}
	e.counter(retriesTotal, float64(r.requests.Retries), r.service)
	for limit, n := range r.refusals {
		e.counter(refusalsTotal, float64(n), r.service, label(balancer.Limit(limit)))
	}
	e.gauge(pendingDesc, float64(r.pending), r.service)
	e.counter(receivedBytes, float64(r.requests.BytesIn), r.service)
	e.counter(sentBytes, float64(r.requests.BytesOut), r.service)
	e.gauge(inflightDesc, float64(r.inflight()), r.service)

	cumulative, total := make(map[float64]uint64, len(c.bounds)), uint64(0)
	for i, n := range r.requests.Buckets() {
		total += n
		if i < len(c.bounds) {
			cumulative[c.bounds[i]] = total
		}
	}
	e.ch <- prometheus.MustNewConstHistogram(requestDuration, total, r.requests.Latency.Seconds(), cumulative, r.service)
}

// classes yields every class of a request.
func classes(yield func(metrics.Class) bool) {
	for c := range metrics.NumClasses {
		if !yield(metrics.Class(c)) {
			return
		}
	}
}

func (c *collector) peers(e emitter, r *reading) {
	states := r.states()
	for _, state := range peerStates {
		e.gauge(peersDesc, float64(states[state]), r.service, state.String())
	}
	e.gauge(eligibleDesc, float64(r.eligible), r.service)
	e.gauge(panicDesc, number(r.panic), r.service)
	for tier, t := range r.tiers {
		e.gauge(tierShare, t.Share, r.service, strconv.Itoa(tier))
	}
	for _, p := range r.peers {
		e.gauge(peerInflight, float64(p.inflight), r.service, p.labels.node, p.labels.id, p.labels.address)
		e.gauge(peerLatency, p.Latency().Seconds(), r.service, p.labels.node, p.labels.id, p.labels.address)
		for class, n := range p.outcomes {
			// Most peers never see most outcomes; "ok" is always there, so that
			// a rate over all outcomes has a series to begin with.
			if class := balancer.OutcomeClass(class); n > 0 || class == balancer.OutcomeOK {
				e.counter(peerAttempts, float64(n), r.service, p.labels.node, p.labels.id, p.labels.address, label(class))
			}
		}
	}
}

func (c *collector) health(e emitter) {
	running, overdue := c.h.Checks()
	e.gauge(checksRunning, float64(running))
	e.gauge(checksOverdue, float64(overdue))
	for service, s := range c.h.Health() {
		e.counter(checksTotal, float64(s.ChecksPassed), service, "passed")
		e.counter(checksTotal, float64(s.ChecksFailed), service, "failed")
		for cause, n := range s.Ejections {
			e.counter(ejectionsTotal, float64(n), service, healthcheck.Cause(cause).String())
		}
		e.counter(ejectionsDenied, float64(s.Refused), service)
	}
}

// label returns the name of v as the value of a label.
func label(v fmt.Stringer) string { return strings.ReplaceAll(v.String(), " ", "_") }

func (c *collector) discovery(e emitter, s discovery.WatchStatus) {
	for _, state := range []discovery.WatchState{discovery.WatchPending, discovery.WatchFresh, discovery.WatchStale} {
		e.gauge(discoveryState, number(s.State == state), s.Service, state.String())
	}
	e.gauge(discoveryIndex, float64(s.Index), s.Service)
	e.gauge(discoveryInstances, float64(s.Instances), s.Service)
	e.gauge(discoveryProbation, float64(s.Probation), s.Service)
	e.gauge(discoveryRestored, number(!s.Restored.IsZero()), s.Service)
	e.timestamp(discoverySuccess, s.LastSuccess, s.Service)
	e.timestamp(discoveryChange, s.LastChange, s.Service)
	e.counter(discoveryQueries, float64(s.Queries), s.Service)
	e.counter(discoveryErrors, float64(s.Errors), s.Service)
	e.counter(discoveryChanges, float64(s.Changes), s.Service)
}

func (c *collector) consul(e emitter) {
	s := c.h.ConsulStats()
	e.counter(consulRequests, float64(s.Queries))
	e.counter(consulErrors, float64(s.Errors))
	e.counter(consulLimited, float64(s.Refused))
	e.counter(consulReceived, float64(s.BytesReceived))
	e.counter(consulSent, float64(s.BytesSent))
	e.gauge(consulConnections, float64(s.Connections))
	e.counter(consulOpened, float64(s.Opened))
	e.gauge(consulLimit, float64(s.Limit))
	e.gauge(consulWatches, float64(s.Watches-s.Riding), "query")
	e.gauge(consulWatches, float64(s.Riding), "overview")
}

func (c *collector) config(e emitter) {
	current, reloads := c.h.History.Current(), c.h.History.Reloads()
	e.gauge(configRevision, float64(current.Number))
	e.timestamp(configApplied, current.Time)
	e.gauge(configOK, number(reloads.Last == nil))
	e.counter(configReloads, float64(reloads.Applied), "applied")
	e.counter(configReloads, float64(reloads.Refused), "refused")
}

// emitter sends single values.
type emitter struct{ ch chan<- prometheus.Metric }

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e.send(d, prometheus.GaugeValue, v, labels)
}

func (e emitter) counter(d *prometheus.Desc, v float64, labels ...string) {
	e.send(d, prometheus.CounterValue, v, labels)
}

func (e emitter) send(d *prometheus.Desc, t prometheus.ValueType, v float64, labels []string) {
	for i := range labels {
		labels[i] = strings.ToValidUTF8(labels[i], "\ufffd") // others are refused
	}
	e.ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
}

// timestamp sends Unix time in seconds, and nothing for a time that never was.
func (e emitter) timestamp(d *prometheus.Desc, t time.Time, labels ...string) {
	if !t.IsZero() {
		e.gauge(d, float64(t.UnixMilli())/1000, labels...)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
