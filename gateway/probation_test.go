package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// Instances that Consul has lost are used until they first fail. The failure costs no request
// as long as there is another instance.
func TestLostInstancesAreUsedUntilTheyFail(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	app := func(name string) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }))
		t.Cleanup(s.Close)
		return s
	}
	a, b := app("a"), app("b")
	address := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	entry := func(id string, s *httptest.Server) *api.ServiceEntry {
		return discoverytest.Instance("star", id, port(t, address(s)))
	}
	consul.Set("star", entry("star-a", a), entry("star-b", b))
	r := start(t, fmt.Sprintf(`
consul: { addresses: [%q] }
services: { star: { consul: {}, balance: { policy: round_robin } } }
routes: [{ service: star }]
`, consul.URL()))
	served := func(want string) {
		t.Helper()
		got := make(map[string]bool)
		for range 10 {
			status, body := r.get("/")
			verify.Require(t, status == 200 && strings.Contains(want, body), "got %d %q, want one of %q", status, body, want)
			got[body] = true
		}
		verify.That(t, len(got) == len(want), "served by %v, want all of %q", got, want)
	}
	probation := func(s *httptest.Server) bool { return r.peers()[address(s)].Probation != nil }
	r.await("both peers", func() bool { return r.peers()[address(a)].Used && r.peers()[address(b)].Used })
	served("ab")

	consul.Set("star")
	r.await("both peers on probation", func() bool { return probation(a) && probation(b) && r.watchOf("star").Probation == 2 })
	served("ab")
	p := r.peers()[address(a)]
	if p.State != "up" || len(p.Reasons) != 1 || !strings.HasPrefix(p.Reasons[0], "consul: lost since ") || !strings.HasSuffix(p.Reasons[0], ", used until it fails") {
		t.Errorf("peer %+v", p)
	}
	want := `sluice_discovery_probation_instances{service="star"} 2`
	verify.That(t, strings.Contains(r.metrics(), want), "metrics lack %s", want)
	b.Close()
	served("a")
	p = r.peers()[address(b)]
	verify.That(t, !p.Used && p.State == "unhealthy", "state of the peer that refuses connections: %+v", p)
	a.Close()
	for range 3 {
		if status, body := r.get("/"); status != 503 || !strings.Contains(body, "every instance of the service is unhealthy") {
			t.Errorf("got %d %q without a working peer, want 503", status, body)
		}
	}

	c := app("c")
	consul.Set("star", entry("star-c", c))
	r.await("the new peer is used", func() bool { return r.peers()[address(c)].Used })
	served("c")
	consul.Set("star", entry("star-c", c), entry("star-d", app("d")))
	r.await("the lost peers are removed", func() bool { return len(r.peers()) == 2 && r.watchOf("star").Probation == 0 })
	served("cd")
}
