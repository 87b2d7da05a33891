package admin

import (
	"errors"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"sluice/admin/fleet"
	"sluice/balancer"
	"sluice/balancer/reading"
	"sluice/certificates"
	"sluice/config"
	"sluice/config/chain"
	"sluice/config/live"
	"sluice/config/routes"
	"sluice/consul"
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
	"sluice/proxy/packets"
	"sluice/proxy/socket"
	"sluice/release"
	"sluice/route"
	"sluice/route/auth"
	"sluice/route/compression"
	"sluice/tags/claim"
	"sluice/test/verify"
)

// busy returns options with a value for each metric.
func busy(t *testing.T) (Options, *balancer.Pool) {
	bad := instance("star", "b", "10.0.0.2")
	bad.Status = discovery.StatusCritical
	pool := newPool(t, "star", instance("star", "a", "10.0.0.1"), bad)
	divide(t, pool)
	pick(t, pool).Done(balancer.Outcome{Class: balancer.OutcomeOK, Status: 200, Latency: time.Millisecond})
	pick(t, pool).Done(balancer.Outcome{Class: balancer.OutcomeConnectFailure, Latency: time.Millisecond})
	flying := pick(t, pool)
	t.Cleanup(func() { flying.Done(balancer.Outcome{}) })
	requests := pool.Requests
	requests.Observe(0, 200, 3*time.Millisecond, 5, 70)
	requests.Observe(1, 204, 30*time.Millisecond, 0, 0)
	requests.Observe(2, 503, 2*time.Minute, 1, 10)
	requests.Observe(3, 499, time.Millisecond, 0, 0)
	requests.ObserveGRPC(0, 14)
	requests.ObserveResponse(0, 200, "")
	requests.ObserveResponse(1, 503, "no_peers")
	requests.Retry(0)

	unrouted := metrics.NewRequests()
	unrouted.Observe(0, 404, time.Millisecond, 0, 0)
	unrouted.ObserveResponse(0, 404, "no_route")

	copies := route.NewCopies("star", "star", "canary")
	copies.Begin(2)
	copies.Begin(2)
	copies.End(0, 502, 2*time.Millisecond, false)
	copies.Skip(route.DroppedProtocol)
	target := &route.Service{Name: "star", Pool: pool}
	mirror := &route.Mirror{Service: target, Share: .5, Copies: copies}
	named := metrics.NewRequests()
	named.Observe(0, 200, time.Millisecond, 0, 0)
	table := verify.Result(route.NewTable([]route.Route{
		{Path: "/", Service: target, Mirror: mirror}, {Path: "/a", Service: target, Mirror: mirror}, {Path: "/b", Service: target, Name: "checkout", Requests: named},
		{Path: "/chain", Service: target, Router: &route.Router{
			Chain: verify.Result(route.NewChain([]route.Branch{{Route: route.Route{Path: "/", Origin: "service-splitter star"}}})).Must(t),
			Ways: []route.Route{{Weighted: &route.Weighted{Targets: []route.Target{
				{Route: &route.Route{Service: target}, Share: .3}, {Route: &route.Route{Service: target}, Share: .7},
			}}}},
		}},
		{Path: "/w", Weighted: &route.Weighted{Targets: []route.Target{{Route: &route.Route{Service: target}, Share: 1}}}},
		{Path: "/w", Conditions: route.Conditions{Methods: []string{"GET"}}, Weighted: &route.Weighted{Targets: []route.Target{
			{Route: &route.Route{Service: target, Split: route.ToGroup(pool.Group("canary"))}, Share: .4}, {Route: &route.Route{Service: target}, Share: .6},
		}}},
	})).Must(t)

	past := history(t, firstConfig, secondConfig)
	past.Refused()
	given := operator.New(operator.Options{Backing: operator.Backing{Prefix: "orders"}})
	t.Cleanup(given.Store.Pause)
	for _, o := range []operator.Order{
		{Kind: operator.Drain, Node: "m"}, {Kind: operator.Drain, Service: "star", ID: "z", Address: "10.0.0.9:80"},
		{Kind: operator.Weight, Service: "star", ID: "z", Address: "10.0.0.9:80", Weight: 5},
	} {
		verify.NoError(t, given.Give(o))
	}
	o := Options{
		Process:   Process{Version: "1.2.3", Ready: func() (bool, []string) { return false, []string{"never"} }},
		Orders:    given,
		Services:  Services{Pools: poolsOf(pool)},
		Routes:    Routes{Table: func() *route.Table { return table }},
		Documents: documents{past},
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(
		ProcessMetrics(o.Version, o.Ready),
		metrics.Panics(),
		operator.Metrics(given.Stats),
		fleet.NewLimits(fleet.LimitsOptions{Limits: func() []routes.FleetLimit { return make([]routes.FleetLimit, 1) }}).Metrics(),
		reading.Metrics(o.Pools),
		route.Metrics(o.Table),
		live.Metrics(past, func() []live.Status {
			return []live.Status{{Source: config.Source{Name: "consul_kv:sluice/"}, Stale: errors.New("no answer"), Refused: &live.Refusal{Err: os.ErrPermission}}}
		}),
		discovery.Metrics(func() []discovery.WatchStatus {
			return []discovery.WatchStatus{
				{Service: "star", State: discovery.WatchFresh, Index: 42, Instances: 2, Probation: 1, Invalid: make([]discovery.Invalid, 5), Restored: time.Unix(700, 0), LastSuccess: time.Unix(1000, 5e8), LastChange: time.Unix(900, 0), Queries: 9, Errors: 3, Changes: 2},
				{Service: "never"},
			}
		}),
		chain.Metrics(func() map[string]int { return map[string]int{"star": 1} }),
		claim.Metrics(func() []claim.Problem {
			return []claim.Problem{{Kind: claim.KindConflict}, {Kind: claim.KindConflict}, {Kind: claim.KindBad, Harmless: true}}
		}),
		proxy.Metrics(func() proxy.Stats {
			return proxy.Stats{
				Unrouted: unrouted.Snapshot(), UnroutedResponses: unrouted.Responses(),
				Connections: 3, ConnectionLimit: 74, Refused: 75,
				Ended:   proxy.EndedConnections{MaxRequests: 72, MaxAge: 73},
				HTTP2:   proxy.StreamStats{ResetsReceived: 66, ResetsSent: 67, RefusedStreams: 68, RefusedConnections: 69, GoAways: 70, Errors: 71},
				HTTP3:   proxy.StreamStats{ResetsReceived: 131, ResetsSent: 132, RefusedConnections: 133, GoAways: 134, Errors: 135},
				Packets: map[string]packets.Counts{"web": {Passed: 137, NotPassed: 138, NotReceived: 139, ReceiveBytes: 140}}, HTTP3Retries: 136,
				Handshakes: socket.HandshakeStats{Full: 61, Resumed: 62, Failed: 63, InProgress: 64, Waiting: 65},
			}
		}),
		accesslog.Metrics(func() uint64 { return 11 }),
		tracing.Metrics(func() tracing.Counts { return tracing.Counts{Exported: 12, Dropped: 13, Failed: 14} }),
		auth.Metrics(func() []auth.KeySetStatus {
			return []auth.KeySetStatus{{Source: "https://issuer/keys", Keys: make([]auth.KeyStatus, 2), Read: time.Now(), Failures: 86}}
		}),
		compression.Metrics(func() compression.Stats {
			return compression.Stats{InUseBytes: 84, Skipped: 85, Encodings: []compression.EncodingStats{{Encoding: compression.Brotli, Responses: 81, BytesIn: 82, BytesOut: 83}}}
		}),
		mesh.IntentionMetrics(func() []mesh.IntentionState {
			return []mesh.IntentionState{{Destination: mesh.Destination{Service: "web"}, Source: "sluice", Verdict: mesh.Denied}}
		}),
		mesh.IdentityMetrics(func() mesh.IdentityStatus {
			return mesh.IdentityStatus{Service: "sluice", Usable: true, Leaves: 28, Roots: 29}
		}),
		certificates.Metrics(func() []certificates.Usage {
			good := certificates.Usage{UsedBy: `listener "web"`, Status: certificates.Status{File: "/a.pem", Expires: time.Unix(2e9, 0)}}
			bad := certificates.Usage{UsedBy: "consul", Status: certificates.Status{File: "/b.pem", Expires: time.Unix(1e9, 0), Fault: errors.New("cut")}}
			return []certificates.Usage{good, bad}
		}),
		healthcheck.Metrics(func() (running, overdue int) { return 26, 27 }, func() map[string]healthcheck.Stats {
			return map[string]healthcheck.Stats{"star": {
				ChecksPassed: 21, ChecksFailed: 22, Refused: 23,
				Ejections: [healthcheck.NumCauses]uint64{healthcheck.CauseFailures: 24, healthcheck.CauseLatency: 25},
			}}
		}),
		consulsource.Metrics(func() consulsource.Stats {
			return consulsource.Stats{Stats: consul.Stats{Queries: 31, Errors: 32, Refused: 33, BytesReceived: 34, BytesSent: 35, Connections: 36, Opened: 37, Limit: 38, Watches: 50}, OnOverview: 11}
		}),
		registration.Metrics(func() registration.Status {
			return registration.Status{State: registration.StateRegistered, Service: "sluice", Registrations: 41, Errors: 42}
		}),
		saved.Metrics(func() saved.Status { return saved.Status{Written: time.Unix(800, 0), Errors: 4} }),
		release.Metrics(func() []release.State {
			return []release.State{
				{Service: "star", Group: "canary", Share: 0.25, Override: &release.Share{By: release.ByJudge}, Judge: &release.JudgeState{Evidence: 72, SlowEvidence: 73}},
				{Service: "moon", Group: "new", Share: 0.5},
			}
		}),
	)
	o.Metrics = registry
	return o, pool
}

func scrape(t testing.TB, h http.Handler) string {
	t.Helper()
	status, body := get(t, h, "/metrics")
	verify.Require(t, status == http.StatusOK, "status %d: %s", status, body)
	return body
}

func TestMetricsAgreeWithTheViews(t *testing.T) {
	o, _ := busy(t)
	body := scrape(t, handlerOf(o))
	for _, want := range []string{
		`sluice_ready 0`,
		`sluice_snapshot_last_write_timestamp_seconds 800`,
		`sluice_snapshot_errors_total 4`,
		`sluice_tls_handshakes_total{result="full"} 61`,
		`sluice_tls_handshakes_total{result="resumed"} 62`,
		`sluice_tls_handshakes_total{result="failed"} 63`,
		`sluice_tls_handshakes_in_progress 64`,
		`sluice_http2_resets_total{by="client"} 66`,
		`sluice_http2_resets_total{by="sluice"} 67`,
		`sluice_http2_refused_streams_total{limit="streams"} 68`,
		`sluice_http2_refused_streams_total{limit="connections"} 69`,
		`sluice_http2_ended_connections_total{cause="drain"} 70`,
		`sluice_http2_ended_connections_total{cause="error"} 71`,
		`sluice_http3_resets_total{by="client"} 131`,
		`sluice_http3_resets_total{by="sluice"} 132`,
		`sluice_http3_refused_streams_total{limit="connections"} 133`,
		`sluice_http3_ended_connections_total{cause="drain"} 134`,
		`sluice_http3_ended_connections_total{cause="error"} 135`,
		`sluice_http3_retries_total 136`,
		`sluice_http3_packets_total{fate="passed",listener="web"} 137`,
		`sluice_http3_packets_total{fate="not_passed",listener="web"} 138`,
		`sluice_http3_packets_total{fate="not_received",listener="web"} 139`,
		`sluice_http3_receive_buffer_bytes{listener="web"} 140`,
		`sluice_tls_handshakes_waiting 65`,
		`sluice_compressed_responses_total{encoding="br"} 81`,
		`sluice_compression_input_bytes_total{encoding="br"} 82`,
		`sluice_compression_output_bytes_total{encoding="br"} 83`,
		`sluice_compression_memory_bytes 84`,
		`sluice_compression_skipped_total 85`,
		`sluice_token_keys{source="https://issuer/keys"} 2`,
		`sluice_token_keys_failures_total{source="https://issuer/keys"} 86`,
		`sluice_certificate_expiry_timestamp_seconds{file="/a.pem",used_by="listener \"web\""} 2e+09`,
		`sluice_certificate_expiry_timestamp_seconds{file="/b.pem",used_by="consul"} 1e+09`,
		`sluice_certificate_file_error{file="/a.pem",used_by="listener \"web\""} 0`,
		`sluice_certificate_file_error{file="/b.pem",used_by="consul"} 1`,
		`sluice_registered{service="sluice"} 1`,
		`sluice_registrations_total{service="sluice"} 41`,
		`sluice_registration_errors_total{service="sluice"} 42`,
		`sluice_consul_queries_total 31`,
		`sluice_consul_errors_total 32`,
		`sluice_consul_rate_limited_total 33`,
		`sluice_consul_received_bytes_total 34`,
		`sluice_consul_sent_bytes_total 35`,
		`sluice_consul_connections 36`,
		`sluice_consul_connections_opened_total 37`,
		`sluice_consul_query_limit 38`,
		`sluice_consul_watches{by="query"} 39`,
		`sluice_consul_watches{by="overview"} 11`,
		`sluice_discovery_restored{service="star"} 1`,
		`sluice_discovery_probation_instances{service="star"} 1`,
		`sluice_discovery_invalid{service="star"} 5`,
		`sluice_requests_total{class="2xx",service="star"} 2`,
		`sluice_requests_total{class="5xx",service="star"} 1`,
		`sluice_requests_total{class="aborted",service="star"} 1`,
		`sluice_responses_total{reason="",service="star",status="200"} 1`,
		`sluice_responses_total{reason="no_peers",service="star",status="503"} 1`,
		`sluice_grpc_calls_total{service="star",status="UNAVAILABLE"} 1`,
		`sluice_request_duration_seconds_bucket{service="star",le="0.001"} 1`,
		`sluice_request_duration_seconds_bucket{service="star",le="0.005"} 2`,
		`sluice_request_duration_seconds_bucket{service="star",le="60"} 3`,
		`sluice_request_duration_seconds_bucket{service="star",le="+Inf"} 4`,
		`sluice_request_duration_seconds_count{service="star"} 4`,
		`sluice_request_duration_seconds_sum{service="star"} 120.034`,
		`sluice_retries_total{service="star"} 1`,
		`sluice_refusals_total{limit="retry_budget",service="star"} 0`,
		`sluice_requests_pending{service="star"} 0`,
		`sluice_request_body_bytes_total{service="star"} 6`,
		`sluice_response_body_bytes_total{service="star"} 80`,
		`sluice_unrouted_requests_total{class="4xx"} 1`,
		`sluice_unrouted_responses_total{reason="no_route",status="404"} 1`,
		`sluice_route_requests_total{class="2xx",route="checkout",service="star"} 1`,
		`sluice_route_request_duration_seconds_count{route="checkout",service="star"} 1`,
		`sluice_requests_in_flight{service="star"} 1`,
		`sluice_peers{service="star",state="up"} 1`,
		`sluice_peers{service="star",state="unhealthy"} 1`,
		`sluice_peers{service="star",state="draining"} 0`,
		`sluice_peers_eligible{service="star"} 1`,
		`sluice_panic{service="star"} 0`,
		`sluice_tier_share{service="star",tier="0"} 1`,
		`sluice_group_attempts_total{class="2xx",group="canary",service="star"} 1`,
		`sluice_group_attempts_total{class="5xx",group="canary",service="star"} 1`,
		`sluice_group_attempt_duration_seconds_count{group="canary",service="star"} 2`,
		`sluice_group_attempt_duration_seconds_sum{group="canary",service="star"} 0.002`,
		`sluice_group_fallbacks_total{group="rest",service="star"} 0`,
		`sluice_group_peers_eligible{group="canary",service="star"} 1`,
		`sluice_group_peers_eligible{group="rest",service="star"} 0`,
		`sluice_mirror_requests_total{class="5xx",group="canary",mirror="star",service="star"} 1`,
		`sluice_mirror_request_duration_seconds_sum{group="canary",mirror="star",service="star"} 0.002`,
		`sluice_mirror_failures_total{group="canary",mirror="star",service="star"} 1`,
		`sluice_mirror_dropped_total{group="canary",mirror="star",reason="protocol",service="star"} 1`,
		`sluice_mirror_dropped_total{group="canary",mirror="star",reason="no_peer",service="star"} 0`,
		`sluice_mirror_requests_in_flight{group="canary",mirror="star",service="star"} 1`,
		`sluice_route_share{group="canary",host="",path="/w",service="star"} 0.4`,
		`sluice_route_share{group="",host="",path="/w",service="star"} 0.6`,
		`sluice_chain_share{branch="service-splitter star",service="star",target="star"} 1`,
		`sluice_split_share{group="canary",service="star"} 0.25`,
		`sluice_split_share{group="new",service="moon"} 0.5`,
		`sluice_split_given{by="judge",group="canary",service="star"} 1`,
		`sluice_split_given{by="operator",group="canary",service="star"} 0`,
		`sluice_judge_evidence{group="canary",of="failures",service="star"} 72`,
		`sluice_judge_evidence{group="canary",of="latency",service="star"} 73`,
		`sluice_orders{kind="drain"} 2`,
		`sluice_orders{kind="weight"} 1`,
		`sluice_orders_write_failed 0`,
		`sluice_peer_requests_in_flight{address="10.0.0.1:80",id="a",node="n",service="star"} 1`,
		`sluice_peer_attempts_total{address="10.0.0.1:80",id="a",node="n",outcome="ok",service="star"} 1`,
		`sluice_peer_attempts_total{address="10.0.0.1:80",id="a",node="n",outcome="connect_failure",service="star"} 1`,
		`sluice_peer_attempts_total{address="10.0.0.2:80",id="b",node="n",outcome="ok",service="star"} 0`,
		`sluice_discovery_state{service="star",state="fresh"} 1`,
		`sluice_discovery_state{service="star",state="stale"} 0`,
		`sluice_discovery_state{service="never",state="pending"} 1`,
		`sluice_discovery_index{service="star"} 42`,
		`sluice_discovery_instances{service="star"} 2`,
		`sluice_discovery_last_success_timestamp_seconds{service="star"} 1000.5`,
		`sluice_discovery_last_change_timestamp_seconds{service="star"} 900`,
		`sluice_discovery_queries_total{service="star"} 9`,
		`sluice_discovery_errors_total{service="star"} 3`,
		`sluice_discovery_changes_total{service="star"} 2`,
		`sluice_config_revision 2`,
		`sluice_config_last_reload_successful 0`,
		`sluice_config_source_state{source="consul_kv:sluice/",state="stale"} 1`,
		`sluice_config_source_state{source="consul_kv:sluice/",state="in_use"} 0`,
		`sluice_config_reloads_total{result="applied"} 2`,
		`sluice_config_reloads_total{result="refused"} 1`,
		`sluice_config_info{hash="0123"} 1`,
		`sluice_tag_problems{harmless="false",kind="conflict"} 2`,
		`sluice_tag_problems{harmless="true",kind="bad"} 1`,
		`sluice_client_connections 3`,
		`sluice_client_connections_limit 74`,
		`sluice_client_connections_refused_total 75`,
		`sluice_health_checks_total{result="passed",service="star"} 21`,
		`sluice_health_checks_total{result="failed",service="star"} 22`,
		`sluice_ejections_refused_total{service="star"} 23`,
		`sluice_ejections_total{cause="consecutive_failures",service="star"} 24`,
		`sluice_ejections_total{cause="latency",service="star"} 25`,
		`sluice_health_checks_running 26`,
		`sluice_health_checks_overdue 27`,
		`sluice_access_log_dropped_lines_total 11`,
		`sluice_trace_spans_total{result="dropped"} 13`,
		`sluice_trace_spans_total{result="exported"} 12`,
		`sluice_trace_spans_total{result="failed"} 14`,
	} {
		verify.Contains(t, body, "\n"+want+"\n", "no line %s", want)
	}
	for _, unwanted := range []string{
		`sluice_discovery_last_success_timestamp_seconds{service="never"}`,
		`id="b",node="n",outcome="connect_failure"`,
	} {
		verify.That(t, !strings.Contains(body, unwanted), "unwanted: %s", unwanted)
	}
	for _, want := range []string{`sluice_build_info{go_version="go1.`, `version="1.2.3"} 1`} {
		verify.That(t, strings.Contains(body, want), "nothing like %s", want)
	}
}

func TestMetricsFollowPrometheusConventions(t *testing.T) {
	o, _ := busy(t)
	problems := verify.Result(testutil.GatherAndLint(o.Metrics)).Must(t)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestScrapeWhileEverythingChanges(t *testing.T) {
	o, pool := busy(t)
	h := handlerOf(o)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			set := []discovery.Instance{instance("star", "a", "10.0.0.1"), instance("star", "x", "10.0.0.8"), instance("star", "y", "10.0.0.9")}
			pool.Apply(set[:1+i%3])
			if token, err := pool.Pick(nil); err == nil {
				token.Done(balancer.Outcome{Class: balancer.OutcomeClass(i % balancer.NumOutcomes)})
			}
		}
	})
	for range 20 {
		scrape(t, h)
		getJSON[[]Peer](t, h, "/api/peers")
		getJSON[[]Service](t, h, "/api/services")
	}
	close(stop)
	wg.Wait()
}

// documented is a row of the tables in docs/metrics.md.
type documented struct{ name, labels, help string }

// kindOf returns the type of a metric, which its name tells, as docs/metrics.md says.
func kindOf(name string) dto.MetricType {
	switch {
	case strings.HasSuffix(name, "_total"):
		return dto.MetricType_COUNTER
	case strings.HasSuffix(name, "_duration_seconds"):
		return dto.MetricType_HISTOGRAM
	}
	return dto.MetricType_GAUGE
}

func TestDocumentationListsEveryMetric(t *testing.T) {
	o, _ := busy(t)
	families := verify.Result(o.Metrics.Gather()).Must(t)
	var want []documented
	for _, f := range families {
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		verify.Equal(t, f.GetType(), kindOf(f.GetName()), "the type of %s", f.GetName())
		want = append(want, documented{f.GetName(), strings.Join(labels, ", "), f.GetHelp()})
	}

	text := verify.Result(os.ReadFile("../docs/metrics.md")).Must(t)
	var got []documented
	for _, row := range regexp.MustCompile("(?m)^\\| `(sluice_\\w+)` \\| ([^|]*) \\| ([^|]*) \\|$").FindAllStringSubmatch(string(text), -1) {
		got = append(got, documented{row[1], strings.TrimSpace(row[2]), row[3]})
	}
	for _, d := range want {
		verify.That(t, slices.Contains(got, d), "docs/metrics.md has no row\n| `%s` | %s | %s |", d.name, d.labels, d.help)
	}
	for _, d := range got {
		verify.That(t, slices.Contains(want, d), "docs/metrics.md has a row for what is not there:\n%+v", d)
	}
	declared := make(chan *prometheus.Desc, len(got)+1)
	o.Metrics.(*prometheus.Registry).Describe(declared)
	verify.That(t, len(want) == len(declared), "%d metrics are declared, the test sees %d", len(declared), len(want))
}
