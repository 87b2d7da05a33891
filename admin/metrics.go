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
	"sluice/observe/metrics"
	"sluice/observe/panics"
	"sluice/operator"
	"sluice/tags/claim"
)

// newMetrics returns the handler of /metrics, with its own registry.
func (h *handler) newMetrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		&collector{h, metrics.BucketBounds()},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		ErrorHandling:     promhttp.ContinueOnError,
		ErrorLog:          gatherLog{h.Log},
	})
}

type gatherLog struct{ zerolog.Logger }

func (l gatherLog) Println(v ...any) { l.Error().Msg(strings.TrimSpace(fmt.Sprintln(v...))) }

// collector makes every series at the time of the scrape. So no request updates a
// metric, and the series of a service or a peer end with it.
type collector struct {
	h      *handler
	bounds []float64 // of the latency buckets, in seconds
}

// descriptions are all metrics of collector.
var descriptions []*prometheus.Desc

func describe(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("sluice_"+name, help, labels, nil)
	descriptions = append(descriptions, d)
	return d
}

var (
	buildInfo = describe("build_info", "Always 1; the labels are the versions.", "version", "go_version")
	readyDesc = describe("ready", "1 if sluice can serve, else 0.")

	requestsTotal   = describe("requests_total", "Finished requests by class of the status sent to the client.", "service", "class")
	grpcTotal       = describe("grpc_calls_total", "Finished calls of gRPC by status.", "service", "status")
	requestDuration = describe("request_duration_seconds", "Time from a request's arrival to the end of its response.", "service")
	retriesTotal    = describe("retries_total", "Attempts after the first of a request.", "service")
	refusalsTotal   = describe("refusals_total", "Attempts refused by a limit of the service.", "service", "limit")
	pendingDesc     = describe("requests_pending", "Requests that wait for a peer or a connection.", "service")
	receivedBytes   = describe("request_body_bytes_total", "Octets of request bodies received from clients.", "service")
	sentBytes       = describe("response_body_bytes_total", "Octets of response bodies sent to clients.", "service")
	unroutedTotal   = describe("unrouted_requests_total", "Requests without a service: no route matched, or they were malformed.", "class")
	inflightDesc    = describe("requests_in_flight", "Attempts in flight to all peers of a service.", "service")

	peersDesc    = describe("peers", "Peers by state.", "service", "state")
	eligibleDesc = describe("peers_eligible", "Peers that get requests.", "service")
	panicDesc    = describe("panic", "1 while failing peers get requests too, because too few are eligible; else 0.", "service")
	tierShare    = describe("tier_share", "Share of a service's requests that a tier gets, 0 to 1; tier 0 is the first.", "service", "tier")

	groupAttempts  = describe("group_attempts_total", "Finished attempts on the peers of a group by class of their status; one without an answer is 5xx.", "service", "group", "class")
	groupDuration  = describe("group_attempt_duration_seconds", "Time from the pick of a peer of a group to its response head.", "service", "group")
	groupFallbacks = describe("group_fallbacks_total", "Attempts that found no peer in a group and went to its fallback.", "service", "group")
	groupEligible  = describe("group_peers_eligible", "Peers of a group that get requests.", "service", "group")

	mirrorRequests = describe("mirror_requests_total", "Copies of requests that were sent and have ended, by class of the status; one without an answer is 5xx.", "service", "mirror", "group", "class")
	mirrorDuration = describe("mirror_request_duration_seconds", "Time from the pick of a peer for a copy to its response head.", "service", "mirror", "group")
	mirrorFailures = describe("mirror_failures_total", "Copies of requests that were sent and got no complete answer.", "service", "mirror", "group")
	mirrorDropped  = describe("mirror_dropped_total", "Requests that were selected for a copy and not sent, by reason.", "service", "mirror", "group", "reason")
	mirrorInFlight = describe("mirror_requests_in_flight", "Copies of requests in flight.", "service", "mirror", "group")

	routeShare    = describe("route_share", "Share of a service in the requests of a route with several, at present, 0 to 1; of several routes for a host and path, of the first.", "host", "path", "service", "group")
	splitShare    = describe("split_share", "Share of a group in the split of a service, 0 to 1.", "service", "group")
	splitGiven    = describe("split_given", "1 if the share was set in place of the configuration's, by the judge or an operator; else 0.", "service", "group", "by")
	judgeEvidence = describe("judge_evidence", "Evidence that a group fails more often than the rest, or is slower: 1 is none, 1000 is enough; 0 without a release.", "service", "group", "of")

	ordersDesc    = describe("orders", "Orders of operators that are in force, by what they order.", "kind")
	ordersRefused = describe("orders_write_failed", "1 if the last write of an order to Consul failed: other replicas may not know it; else 0.")

	peerInflight = describe("peer_requests_in_flight", "Attempts in flight to a peer.", "service", "node", "id", "address")
	peerAttempts = describe("peer_attempts_total", "Finished attempts on a peer by outcome.", "service", "node", "id", "address", "outcome")
	peerLatency  = describe("peer_latency_seconds", "Peak-sensitive moving average of the time to a peer's response head.", "service", "node", "id", "address")

	checksTotal     = describe("health_checks_total", "Active health checks by result.", "service", "result")
	checksRunning   = describe("health_checks_running", "Running active health checks.")
	checksOverdue   = describe("health_checks_overdue", "Active health checks delayed by health.max_checks.")
	ejectionsTotal  = describe("ejections_total", "Ejections of peers by the setting that caused them.", "service", "cause")
	ejectionsDenied = describe("ejections_refused_total", "Ejections refused because too many peers were ejected.", "service")

	discoveryState     = describe("discovery_state", "1 for the current state of a service's watch, 0 for the others.", "service", "state")
	discoveryIndex     = describe("discovery_index", "Index of the registry's last answer.", "service")
	discoveryInstances = describe("discovery_instances", "Instances in the last set from the registry.", "service")
	discoveryProbation = describe("discovery_probation_instances", "Instances that the registry has lost and that are used until they fail.", "service")
	discoveryInvalid   = describe("discovery_invalid", "Entries of the registry that cannot be used.", "service")
	discoveryRestored  = describe("discovery_restored", "1 if the instances come from the snapshot, because the registry has not answered since the start; else 0.", "service")
	discoverySuccess   = describe("discovery_last_success_timestamp_seconds", "When the registry last answered, as Unix time.", "service")
	discoveryChange    = describe("discovery_last_change_timestamp_seconds", "When a changed set was last applied, as Unix time.", "service")
	discoveryQueries   = describe("discovery_queries_total", "Queries to the registry.", "service")
	discoveryErrors    = describe("discovery_errors_total", "Queries to the registry that failed.", "service")
	discoveryChanges   = describe("discovery_changes_total", "Changed sets that were applied.", "service")

	consulRequests    = describe("consul_queries_total", "Requests to Consul, including probes of its agents.")
	consulErrors      = describe("consul_errors_total", "Requests to Consul without an answer or with an error.")
	consulLimited     = describe("consul_rate_limited_total", "Requests to Consul with the answer 429: the agent limits the requests of a client address.")
	consulReceived    = describe("consul_received_bytes_total", "Octets received from Consul, with headers and TLS.")
	consulSent        = describe("consul_sent_bytes_total", "Octets sent to Consul, with headers and TLS.")
	consulConnections = describe("consul_connections", "Open connections to Consul.")
	consulOpened      = describe("consul_connections_opened_total", "Connections opened to Consul.")
	consulLimit       = describe("consul_query_limit", "Limit of concurrent queries to Consul; lower after an answer 429.")
	consulWatches     = describe("consul_watches", "Watched services, by how a change is seen.", "by")

	configRevision = describe("config_revision", "Number of the configuration in use.")
	configApplied  = describe("config_last_applied_timestamp_seconds", "When the configuration in use was applied, as Unix time.")
	configOK       = describe("config_last_reload_successful", "0 if the latest configuration was refused, else 1.")
	configSources  = describe("config_source_state", "1 for the state of a source of the configuration, 0 for the others.", "source", "state")
	configReloads  = describe("config_reloads_total", "Configurations loaded, by result.", "result")

	configInfo = describe("config_info", "Always 1; the label is the hash of the configuration in use, equal on replicas with the same documents.", "hash")

	tagProblems = describe("tag_problems", "Tags of instances that are not used as they are, by why, and by whether the route exists nevertheless.", "kind", "harmless")

	snapshotWritten = describe("snapshot_last_write_timestamp_seconds", "When the snapshot was last written, as Unix time.")
	snapshotErrors  = describe("snapshot_errors_total", "Failed attempts to write the snapshot.")

	registeredDesc     = describe("registered", "1 if sluice is registered in Consul, else 0; absent without consul.register.", "service")
	registrationsTotal = describe("registrations_total", "Successful registrations of sluice with an agent of Consul.", "service")
	registrationErrors = describe("registration_errors_total", "Failed attempts to register sluice in Consul or to check the registration.", "service")

	handshakesTotal   = describe("tls_handshakes_total", "TLS handshakes of clients by result.", "result")
	http2Resets       = describe("http2_resets_total", "HTTP/2 streams of clients that were reset.", "by")
	http2Refused      = describe("http2_refused_streams_total", "HTTP/2 streams of clients that were refused by a limit.", "limit")
	http2Ended        = describe("http2_ended_connections_total", "HTTP/2 connections of clients that sluice ended, by cause.", "cause")
	handshakesOpen    = describe("tls_handshakes_in_progress", "TLS handshakes whose ClientHello has arrived.")
	handshakesWaiting = describe("tls_handshakes_waiting", "TLS handshakes that wait because too many are in progress, or for a processor.")

	compressed        = describe("compressed_responses_total", "Responses that sluice has compressed.", "encoding")
	compressionIn     = describe("compression_input_bytes_total", "Octets of content before sluice compressed it.", "encoding")
	compressionOut    = describe("compression_output_bytes_total", "Octets of content after sluice compressed it.", "encoding")
	compressionMemory = describe("compression_memory_bytes", "Estimated memory of the responses that sluice compresses now.")
	compressionMissed = describe("compression_skipped_total", "Responses that sluice did not compress because others had the memory for it.")

	certificateExpires = describe("certificate_expiry_timestamp_seconds", "When a certificate expires, as Unix time: the first of its chain, or the last of trusted ones.", "used_by", "file")
	certificateFault   = describe("certificate_file_error", "1 if the present file cannot be used, so that an earlier version is in use; else 0.", "used_by", "file")

	connectionsOpen    = describe("client_connections", "Open client connections.")
	connectionsEnded   = describe("client_connections_ended_total", "Client connections that reached a limit of client.connections.", "reason")
	connectionsLimit   = describe("client_connections_limit", "Limit of open client connections.")
	connectionsRefused = describe("client_connections_refused_total", "Client connections that a limit of connections refused.")
	panicsTotal        = describe("panics_total", "Faults of sluice itself that ended one connection, request or watch, by what it was.", "at")
	logDropped         = describe("access_log_dropped_lines_total", "Access log lines dropped because the output was too slow or failed.")
	spansTotal         = describe("trace_spans_total", "Spans by result: exported, dropped because too many waited for the collector, or failed because it did not take them.", "result")
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
		c.groups(e, r)
	}
	c.mirrors(e)
	c.routes(e)
	c.splits(e)
	c.orders(e)
	unrouted := c.h.Unrouted.Snapshot()
	for class := range metrics.Class(metrics.NumClasses) {
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
	for at := range panics.Place(panics.NumPlaces) {
		e.counter(panicsTotal, float64(panics.Total(at)), at.String())
	}
	handshakes := c.h.Handshakes()
	e.counter(handshakesTotal, float64(handshakes.Full), "full")
	e.counter(handshakesTotal, float64(handshakes.Resumed), "resumed")
	e.counter(handshakesTotal, float64(handshakes.Failed), "failed")
	e.gauge(handshakesOpen, float64(handshakes.InProgress))
	e.gauge(handshakesWaiting, float64(handshakes.Waiting))
	http2 := c.h.HTTP2()
	e.counter(http2Resets, float64(http2.ResetsReceived), "client")
	e.counter(http2Resets, float64(http2.ResetsSent), "sluice")
	e.counter(http2Refused, float64(http2.RefusedStreams), "streams")
	e.counter(http2Refused, float64(http2.RefusedConnections), "connections")
	e.counter(http2Ended, float64(http2.GoAways), "drain")
	e.counter(http2Ended, float64(http2.Errors), "error")
	c.compression(e)
	c.certificates(e)
	c.tags(e)
	e.gauge(connectionsOpen, float64(c.h.Connections()))
	ended := c.h.EndedConnections()
	e.counter(connectionsEnded, float64(ended.MaxRequests), "max_requests")
	e.counter(connectionsEnded, float64(ended.MaxAge), "max_age")
	e.gauge(connectionsLimit, float64(c.h.ConnectionLimit()))
	e.counter(connectionsRefused, float64(c.h.Refused()))
	e.counter(logDropped, float64(c.h.AccessLogDropped()))
	spans := c.h.Spans()
	e.counter(spansTotal, float64(spans.Exported), "exported")
	e.counter(spansTotal, float64(spans.Dropped), "dropped")
	e.counter(spansTotal, float64(spans.Failed), "failed")
}

func (c *collector) compression(e emitter) {
	stats := c.h.Compression()
	for _, s := range stats.Encodings {
		e.counter(compressed, float64(s.Responses), s.Encoding.String())
		e.counter(compressionIn, float64(s.BytesIn), s.Encoding.String())
		e.counter(compressionOut, float64(s.BytesOut), s.Encoding.String())
	}
	e.gauge(compressionMemory, float64(stats.InUseBytes))
	e.counter(compressionMissed, float64(stats.Skipped))
}

func (c *collector) requests(e emitter, r *reading) {
	for class := range metrics.Class(metrics.NumClasses) {
		e.counter(requestsTotal, float64(r.requests.Class(class)), r.service, class.String())
	}
	for code, n := range r.requests.GRPC {
		if n > 0 {
			e.counter(grpcTotal, float64(n), r.service, metrics.GRPCName(code))
		}
	}
	e.counter(retriesTotal, float64(r.requests.Retries), r.service)
	for limit, n := range r.refusals {
		e.counter(refusalsTotal, float64(n), r.service, label(balancer.Limit(limit)))
	}
	e.gauge(pendingDesc, float64(r.pending), r.service)
	e.counter(receivedBytes, float64(r.requests.BytesIn), r.service)
	e.counter(sentBytes, float64(r.requests.BytesOut), r.service)
	e.gauge(inflightDesc, float64(r.inflight()), r.service)

	c.histogram(e, requestDuration, &r.requests, r.service)
}

// histogram sends the latencies of requests.
func (c *collector) histogram(e emitter, d *prometheus.Desc, requests *metrics.RequestsSnapshot, labels ...string) {
	cumulative, total := make(map[float64]uint64, len(c.bounds)), uint64(0)
	for i, n := range requests.Buckets() {
		total += n
		if i < len(c.bounds) {
			cumulative[c.bounds[i]] = total
		}
	}
	e.ch <- prometheus.MustNewConstHistogram(d, total, requests.Latency.Seconds(), cumulative, labels...)
}

func (c *collector) groups(e emitter, r *reading) {
	for i := range r.groups {
		g := &r.groups[i]
		for class := range metrics.Class(metrics.NumClasses) {
			e.counter(groupAttempts, float64(g.attempts.Class(class)), r.service, g.name, class.String())
		}
		c.histogram(e, groupDuration, &g.attempts, r.service, g.name)
		e.counter(groupFallbacks, float64(g.fallbacks), r.service, g.name)
		e.gauge(groupEligible, float64(g.eligible), r.service, g.name)
	}
}

func (c *collector) orders(e emitter) {
	stats := c.h.Orders.Stats()
	for kind, n := range stats.InForce {
		e.gauge(ordersDesc, float64(n), string(kind))
	}
	if stats.Shared {
		e.gauge(ordersRefused, number(stats.WriteFailed))
	}
}

// routes describes the routes with several services.
func (c *collector) routes(e emitter) {
	seen := make(map[[2]string]bool)
	for _, r := range c.h.Table().Weighted() {
		of := [2]string{r.Host, r.Path}
		if r.HostRegexp != "" {
			of[0] = "~" + r.HostRegexp
		}
		if seen[of] {
			continue
		}
		seen[of] = true
		for _, t := range describeWeighted(r.Weighted, nil).Targets {
			e.gauge(routeShare, t.Present, of[0], of[1], t.Service, t.Group)
		}
	}
}

func (c *collector) splits(e emitter) {
	for _, s := range c.h.Splits() {
		e.gauge(splitShare, s.Share, s.Service, s.Group)
		for _, by := range []string{operator.ByJudge, operator.ByOperator} {
			e.gauge(splitGiven, number(s.Given != nil && s.Given.By == by), s.Service, s.Group, by)
		}
		if s.Judge != nil {
			e.gauge(judgeEvidence, s.Judge.Evidence, s.Service, s.Group, "failures")
			e.gauge(judgeEvidence, s.Judge.SlowEvidence, s.Service, s.Group, "latency")
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
			// Most outcomes never occur. "ok" is always there, so that a rate over
			// all outcomes has a series.
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

// label returns the name of v as a label value.
func label(v fmt.Stringer) string { return strings.ReplaceAll(v.String(), " ", "_") }

func (c *collector) discovery(e emitter, s discovery.WatchStatus) {
	for _, state := range []discovery.Freshness{discovery.WatchPending, discovery.WatchFresh, discovery.WatchStale} {
		e.gauge(discoveryState, number(s.State == state), s.Service, state.String())
	}
	e.gauge(discoveryIndex, float64(s.Index), s.Service)
	e.gauge(discoveryInstances, float64(s.Instances), s.Service)
	e.gauge(discoveryProbation, float64(s.Probation), s.Service)
	e.gauge(discoveryInvalid, float64(len(s.Invalid)), s.Service)
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
	e.gauge(consulWatches, float64(s.Watches-s.OnOverview+s.Direct), "query")
	e.gauge(consulWatches, float64(s.OnOverview-s.Direct), "overview")
}

func (c *collector) config(e emitter) {
	current, reloads := c.h.History.Current(), c.h.History.Reloads()
	e.gauge(configRevision, float64(current.Number))
	e.timestamp(configApplied, current.Time)
	e.gauge(configOK, number(reloads.Last == nil))
	for _, s := range c.h.Sources() {
		source := describeStatus(s)
		for _, state := range []string{sourceInUse, sourcePinned, sourceRefused, sourceStale, sourceWaiting} {
			e.gauge(configSources, number(source.State == state), source.Name, state)
		}
	}
	if current.Hash != "" {
		e.gauge(configInfo, 1, current.Hash)
	}
	e.counter(configReloads, float64(reloads.Applied), "applied")
	e.counter(configReloads, float64(reloads.Refused), "refused")
}

func (c *collector) tags(e emitter) {
	type effect struct {
		kind     claim.Kind
		harmless bool
	}
	count := make(map[effect]int)
	for _, p := range c.h.TagProblems() {
		count[effect{p.Kind, p.Harmless}]++
	}
	for _, kind := range claim.Kinds() {
		for _, harmless := range []bool{false, true} {
			e.gauge(tagProblems, float64(count[effect{kind, harmless}]), string(kind), strconv.FormatBool(harmless))
		}
	}
}

func (c *collector) certificates(e emitter) {
	expires, faults := make(map[[2]string]time.Time), make(map[[2]string]bool)
	for _, s := range c.h.Certificates() { // two services may have the same file
		key := [2]string{s.UsedBy, s.File}
		expires[key], faults[key] = s.Expires, s.Fault != nil
	}
	for key, at := range expires {
		e.timestamp(certificateExpires, at, key[0], key[1])
		e.gauge(certificateFault, number(faults[key]), key[0], key[1])
	}
}

type emitter struct{ ch chan<- prometheus.Metric }

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e.send(d, prometheus.GaugeValue, v, labels)
}

func (e emitter) counter(d *prometheus.Desc, v float64, labels ...string) {
	e.send(d, prometheus.CounterValue, v, labels)
}

func (e emitter) send(d *prometheus.Desc, t prometheus.ValueType, v float64, labels []string) {
	for i := range labels {
		labels[i] = strings.ToValidUTF8(labels[i], "\ufffd")
	}
	e.ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
}

// timestamp sends Unix time in seconds, and nothing for the zero time.
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
