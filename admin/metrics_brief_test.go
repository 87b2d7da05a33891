package admin

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/balancer/reading"
	"sluice/discovery"
	"sluice/healthcheck"
	"sluice/test/long"
	"sluice/test/verify"
)

// fleetOf returns the handler of /metrics of services from a registry, with checks, which have
// served clients.
func fleetOf(t *testing.T, mode string, services, peers int) http.Handler {
	t.Helper()
	var pools []*balancer.Pool
	var watches []discovery.WatchStatus
	health := make(map[string]healthcheck.Stats)
	for i := range services {
		name := fmt.Sprintf("service-%05d", i)
		var set []discovery.Instance
		for n := range peers {
			set = append(set, instance(name, fmt.Sprintf("%s-%d", name, n), fmt.Sprintf("10.1.%d.%d", i%250, n+1)))
		}
		pool := newPool(t, name, set...)
		if peers > 0 {
			pick(t, pool).Done(balancer.Outcome{Class: balancer.OutcomeOK, Status: 200, Latency: time.Millisecond})
		}
		for _, status := range []int{200, 404, 503} {
			pool.Requests.Observe(0, status, 12345*time.Microsecond, 1234567, 7654321)
			pool.Requests.ObserveResponse(0, status, map[int]string{503: "no_peers"}[status])
		}
		pools = append(pools, pool)
		watches = append(watches, discovery.WatchStatus{
			Service: name, State: discovery.WatchFresh, Index: 123456, Instances: peers, LastSuccess: time.Unix(1e9, 1e8),
			LastChange: time.Unix(1e9, 2e8), Queries: 12345, Changes: 123,
		})
		health[name] = healthcheck.Stats{ChecksPassed: 1234567}
	}
	o := Options{Services: Services{Pools: poolsOf(pools...)}}
	o.Metrics = Metrics(func() string { return mode }, o.Pools,
		reading.Metrics(o.Pools),
		discovery.Metrics(func() []discovery.WatchStatus { return watches }),
		healthcheck.Metrics(func() (running, overdue int) { return 0, 0 }, func() map[string]healthcheck.Stats { return health }),
	)
	return handlerOf(o)
}

// Services that others name do not take the memory and the time of whoever scrapes.
func TestMetricsOfManyServicesAreBrief(t *testing.T) {
	body := scrape(t, fleetOf(t, "auto", 10_000, 3))
	t.Logf("%d octets", len(body))
	verify.That(t, len(body) < 10e6, "10,000 services are %d octets", len(body))
	for _, want := range []string{
		`sluice_peers{service="service-00000",state="up"} 3`,
		`sluice_requests_total{class="5xx",service="service-09999"} 1`,
		`sluice_responses_total{reason="no_peers",service="service-09999",status="503"} 1`,
		`sluice_request_duration_seconds_count{service="service-00000"} 3`,
		`sluice_request_duration_seconds_sum{service="service-00000"} 0.037035`,
		`sluice_discovery_state{service="service-00000",state="fresh"} 1`,
		`sluice_health_checks_running 0`,
	} {
		verify.Contains(t, body, "\n"+want+"\n", "no line %s", want)
	}
	for _, unwanted := range []string{"sluice_peer_", `le="0`, `reason=""`, "\nsluice_refusals_total", "\nsluice_ejections_total", `state="stale"`} {
		verify.That(t, !strings.Contains(body, unwanted), "unwanted: %s", unwanted)
	}
}

// What says how many there are is there also when it says 0: an alert compares it.
func TestBriefMetricsSayThatThereIsNoPeer(t *testing.T) {
	body := scrape(t, fleetOf(t, "brief", 1, 0))
	for _, want := range []string{`sluice_peers_eligible{service="service-00000"} 0`, `sluice_discovery_instances{service="service-00000"} 0`} {
		verify.Contains(t, body, "\n"+want+"\n", "no line %s", want)
	}
}

// Ten peers count as a service. Whoever needs the details of many has them with full.
func TestMetricsAreFullUnlessThereAreMany(t *testing.T) {
	long.Sequential(t)
	for _, row := range []struct {
		mode            string
		services, peers int
		full            bool
	}{
		{"auto", 3, 2, true}, {"full", 3, 2, true}, {"brief", 3, 2, false},
		{"auto", 909, 1, true}, {"auto", 910, 1, false}, {"full", 910, 1, true},
		{"auto", 10, 990, true}, {"auto", 10, 991, false},
	} {
		body := scrape(t, fleetOf(t, row.mode, row.services, row.peers))
		for series, each := range map[string]int{
			"sluice_peer_requests_in_flight": row.services * row.peers, "sluice_request_duration_seconds_bucket": 18 * row.services,
			"sluice_refusals_total": balancer.NumLimits * row.services, "sluice_ejections_total": healthcheck.NumCauses * row.services,
			"sluice_discovery_index": row.services, "sluice_tier_share": row.services,
		} {
			if !row.full {
				each = 0
			}
			got := len(regexp.MustCompile(`(?m)^`+series+`\{[^+\n]*$`).FindAllString(body, -1))
			verify.That(t, got == each, "%+v: %d series %s, want %d", row, got, series, each)
		}
	}
}
