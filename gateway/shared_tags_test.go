package gateway

import (
	"fmt"
	"math"
	"net/http"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// Two services with the same tag of fabio share the route, each with its own options: by their
// instances, or by weights. Instances that fail or are drained leave their part to the others,
// without a failed request.
func TestServicesShareARoute(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	echo := func(name string) string {
		return serveOrigin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name, r.URL.Path) })
	}
	blue, green := echo("blue"), echo("green")
	instance := func(service string, n int, address, tag string) *api.ServiceEntry {
		return withTags(t, service, fmt.Sprintf("%s-%d", service, n), address, tag)
	}
	consul.Set("blue", instance("blue", 1, blue, "urlprefix-h.example.com/x"), instance("blue", 2, echo("blue"), "urlprefix-h.example.com/x"), instance("blue", 3, echo("blue"), "urlprefix-h.example.com/x"))
	consul.Set("green", instance("green", 1, green, "urlprefix-h.example.com/x strip=/x"))
	consul.Set("other", instance("other", 1, green, "urlprefix-h.example.com/x")) // without a claim
	r := start(t, fmt.Sprintf(`
consul: { addresses: [%q] }
catalog: { tags: [sluice, fabio], claims: [{ service: "[bgr]*", hosts: [h.example.com] }] }
`, consul.URL()))
	shown := func() string {
		routes := fetch[[]admin.Route](r, "/api/routes")
		text := ""
		for _, route := range routes {
			if route.Weighted == nil {
				if !route.Unused {
					text += route.Service + ";"
				}
				continue
			}
			for _, target := range route.Weighted.Targets {
				text += fmt.Sprintf("%s%v %v of %d, now %v;", target.Service, target.Actions != nil, target.Share, target.UsablePeers, math.Round(1000*target.Present)/10)
			}
		}
		return text
	}
	shows := func(want string) {
		t.Helper()
		r.await("the shares are "+want, func() bool { return shown() == want })
	}
	serve := func(want ...string) {
		t.Helper()
		got := make(map[string]int)
		for range 200 {
			status, body := r.get("h.example.com/x/y")
			verify.Require(t, status == http.StatusOK, "status %d: %s", status, body)
			got[body]++
		}
		// By chance a service with a tenth gets none of 200 requests once in 10⁹ runs.
		for _, body := range want {
			verify.That(t, got[body] != 0, "no answer %q: %v", body, got)
			delete(got, body)
		}
		verify.That(t, len(got) <= 0, "other answers: %v", got)
	}
	shows("bluefalse 0 of 3, now 75;greentrue 0 of 1, now 25;")
	serve("blue/x/y", "green/y")
	routes := fetch[[]admin.Route](r, "/api/routes")
	if route := routes[0]; route.Service != "" || route.AskedBy.Service != "blue" || len(route.SharedWith) != 1 || route.SharedWith[0].Service != "green" || !route.Weighted.ByPeers {
		t.Errorf("the API has %+v", route)
	}

	// A health state, and a weight of another service.
	consul.Set("blue", instance("blue", 1, blue, "urlprefix-h.example.com/x"), discoverytest.Health(instance("blue", 2, blue, "urlprefix-h.example.com/x"), api.HealthCritical, "down"))
	shows("bluefalse 0 of 1, now 50;greentrue 0 of 1, now 50;")
	consul.Set("green", instance("green", 1, green, "urlprefix-h.example.com/x strip=/x weight=0.9"))
	shows("bluefalse 0 of 1, now 10;greentrue 0.9 of 1, now 90;")
	serve("blue/x/y", "green/y")

	// All instances of one service are drained.
	r.drain("green", "green-1")
	shows("bluefalse 0 of 1, now 100;greentrue 0.9 of 0, now 0;")
	serve("blue/x/y")
	post[any](r, "/api/peers/green/green-1/enable")

	consul.Set("blue", instance("blue", 1, blue, "urlprefix-other.example.com/"))
	shows("green;")
	serve("green/y")
}
