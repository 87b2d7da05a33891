package reading

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

func instance(id, address string) discovery.Instance {
	return discovery.Instance{Service: "star", ID: id, Node: "n", Address: address, Port: 80, Weight: 1}
}

func newPool(t *testing.T, name string, set ...discovery.Instance) *balancer.Pool {
	t.Helper()
	p := balancer.NewPool(name, balancertest.Complete(balancer.Options{DrainTimeout: time.Minute}))
	t.Cleanup(p.Close)
	p.Apply(set)
	return p
}

// check compares the series of some metrics of pools.
func check(t *testing.T, pools []*balancer.Pool, want string, names ...string) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(Metrics(func() []*balancer.Pool { return pools }))
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	got := ""
	for line := range strings.Lines(w.Body.String()) {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "sluice_"), "{")
		if slices.Contains(names, name) {
			got += strings.TrimPrefix(line, "sluice_")
		}
	}
	verify.That(t, got == want, "got\n%swant\n%s", got, want)
}

func TestSeriesOfRemovedPeersAndServicesEnd(t *testing.T) {
	star := newPool(t, "star", instance("a", "10.0.0.1"), instance("b", "10.0.0.2"))
	check(t, []*balancer.Pool{star, newPool(t, "other")}, `peer_requests_in_flight{address="10.0.0.1:80",id="a",node="n",service="star"} 0
peer_requests_in_flight{address="10.0.0.2:80",id="b",node="n",service="star"} 0
peers_eligible{service="other"} 0
peers_eligible{service="star"} 2
`, "peer_requests_in_flight", "peers_eligible")
	star.Apply([]discovery.Instance{instance("a", "10.0.0.1")})
	check(t, []*balancer.Pool{star}, `peer_requests_in_flight{address="10.0.0.1:80",id="a",node="n",service="star"} 0
peers_eligible{service="star"} 1
`, "peer_requests_in_flight", "peers_eligible")
}

// A service that is removed and added again has two pools while the first one drains, with the
// same peers. A duplicate series would invalidate the whole scrape, and no counter may fall when
// the first has drained.
func TestPoolsOfTheSameName(t *testing.T) {
	first, again := newPool(t, "star", instance("a", "10.0.0.1")), newPool(t, "star", instance("a", "10.0.0.1"))
	var inFlight []balancer.Token
	for _, pool := range []*balancer.Pool{first, first, again} {
		pool.Requests.Observe(0, 200, time.Millisecond, 5, 0)
		finished := verify.Result(pool.Pick(nil)).Must(t)
		finished.Done(balancer.Outcome{Status: 200})
		inFlight = append(inFlight, verify.Result(pool.Pick(nil)).Must(t))
	}
	first.Close()
	check(t, []*balancer.Pool{again, first}, `peer_requests_in_flight{address="10.0.0.1:80",id="a",node="n",service="star"} 3
peers_eligible{service="star"} 1
requests_in_flight{service="star"} 3
`, "peer_requests_in_flight", "peers_eligible", "requests_in_flight")
	counters := `peer_attempts_total{address="10.0.0.1:80",id="a",node="n",outcome="ok",service="star"} 1
request_body_bytes_total{service="star"} 5
`
	check(t, []*balancer.Pool{again, first}, counters, "peer_attempts_total", "request_body_bytes_total")
	for _, token := range inFlight[:2] {
		token.Done(balancer.Outcome{})
	}
	<-first.Drained()
	check(t, []*balancer.Pool{again}, counters, "peer_attempts_total", "request_body_bytes_total")
}

func TestLabelsThatAreNotUTF8DoNotInvalidateTheScrape(t *testing.T) {
	pools := []*balancer.Pool{newPool(t, "star", instance("a\xff", "10.0.0.1"))}
	check(t, pools, "peer_requests_in_flight{address=\"10.0.0.1:80\",id=\"a\ufffd\",node=\"n\",service=\"star\"} 0\n", "peer_requests_in_flight")
}
