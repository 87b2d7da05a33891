package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

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
	atA, atB := a.Listener.Addr().String(), b.Listener.Addr().String()
	consul.Set("star", star(t, 1, atA), star(t, 2, atB))
	r := start(t, fmt.Sprintf(fromConsul, consul.URL()))
	r.await("both peers", func() bool { return len(r.peers()) == 2 })
	consul.Set("star")
	r.await("both peers on probation", func() bool { return r.watchOf("star").Probation == 2 && r.peers()[atA].Probation != nil })
	served := make(map[string]bool)
	for range 10 {
		_, body := r.get("/")
		served[body] = true
	}
	verify.That(t, len(served) == 2 && served["a"] && served["b"], "served by %v", served)
	p := r.peers()[atA]
	verify.That(t, p.State == "up" && len(p.Reasons) == 1 && strings.HasPrefix(p.Reasons[0], "consul: lost since ") &&
		strings.HasSuffix(p.Reasons[0], ", used until it fails"), "peer %+v", p)
	verify.Contains(t, r.metrics(), `sluice_discovery_probation_instances{service="star"} 2`, "metrics")
	b.Close()
	for range 10 {
		r.gets("/", "a")
	}
	p = r.peers()[atB]
	verify.That(t, !p.Used && p.State == "unhealthy", "the peer that refuses connections: %+v", p)
	a.Close()
	for range 3 {
		status, body := r.get("/")
		verify.That(t, status == 503 && strings.Contains(body, "every instance of the service is unhealthy"), "without a working peer: %d %q", status, body)
	}
	consul.Set("star", star(t, 3, origin(t, "c")))
	r.answers("/", "c")
	consul.Set("star", star(t, 3, origin(t, "c")), star(t, 4, origin(t, "d")))
	r.await("the lost peers are removed", func() bool { return len(r.peers()) == 2 && r.watchOf("star").Probation == 0 })
}
