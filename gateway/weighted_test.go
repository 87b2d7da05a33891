package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/admin"
	"sluice/test/verify"
)

// getAs asks the proxy as a user, whom a header field names.
func (r *running) getAs(user string) (status int, body string) {
	r.t.Helper()
	return r.send(http.MethodGet, r.url("web"), "X-User", user)
}

// A route with several services divides its clients among them, and shows how; shares change
// live without a failed request, and a service without peers gives its share to the others.
func TestServicesOfARoute(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	text := func(shares string) string {
		return fmt.Sprintf("%s\nservices: { a: { peers: [%q] }, b: { peers: [%q] } }\n", preamble, a, b) +
			"routes: [{ path: /, services: { " + shares + ", key: header X-User }, mirror: { service: b, share: 0 } }]\n"
	}
	r := start(t, text("a: 20%, b: 80%"))
	stop := r.load("web")
	users := make(map[string]string) // the answer for each
	served := func() (count map[string]int) {
		count = make(map[string]int)
		for i := range 50 {
			user := fmt.Sprintf("user-%d", i)
			status, answer := r.getAs(user)
			verify.Require(t, status == http.StatusOK, "status %d: %s", status, answer)
			count[answer]++
			users[user] = answer
		}
		return count
	}
	// The hash of these users is always the same.
	first := served()
	verify.That(t, first["a"] >= 3 && first["b"] >= 25, "the services got %v", first)
	for user, want := range users {
		answer := fetch[admin.RouteAnswer](r, "/api/route?url=http://x/&header=X-User:+"+user)
		verify.That(t, answer.Service == want, "/api/route says %q for %s, whose answer is from %s", answer.Service, user, want)
	}
	var routes []admin.Route
	weighted := func() *admin.Weighted {
		routes = nil
		r.api("/api/routes", &routes)
		return routes[0].Weighted
	}
	if w := weighted(); w.Key != "header x-user" || w.ByPeers || len(w.Targets) != 2 || routes[0].Service != "" ||
		w.Targets[0].Service != "a" || w.Targets[0].Share != .2 || w.Targets[0].Present != .2 || w.Targets[0].UsablePeers != 1 {
		t.Errorf("the API has %+v", w)
	}

	m := weighted().Targets[0].Mirror
	verify.That(t, m != nil && m.Service == "b", "the mirror of a is %+v", m)
	if metrics := r.metrics(); !strings.Contains(metrics, `sluice_mirror_requests_total{class="2xx",group="",mirror="b",service="a"} 0`) ||
		!strings.Contains(metrics, `sluice_route_share{group="",host="",path="/",service="b"} 0.8`) {
		t.Error("the metrics have no mirror of a, or no share of b")
	}

	r.replace(text("a: 100%, b: 0%"))
	got := served()
	verify.That(t, got["a"] == 50, "with 100 %% of a: %v", got)
	r.replace(text("a: 90%, b: 10%"))
	var drained any
	r.post("/api/peers/a/"+a+"/drain", &drained)
	got = served()
	verify.That(t, got["b"] == 50, "without peers of a: %v", got)
	w := weighted()
	verify.That(t, w.Targets[0].Share == .9 && w.Targets[0].Present == 0 && w.Targets[1].Present == 1, "the API has %+v", w)
	verify.That(t, stop() != 0, "no requests")
}
