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
// instances, or by weights. Instances that fail leave their part to the others.
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
	const tag = "urlprefix-h.example.com/x"
	consul.Set("blue", instance("blue", 1, blue, tag), instance("blue", 2, echo("blue"), tag), instance("blue", 3, echo("blue"), tag))
	consul.Set("green", instance("green", 1, green, tag+" strip=/x"))
	consul.Set("other", instance("other", 1, green, tag)) // without a claim
	r := start(t, fmt.Sprintf(`
consul: { addresses: [%q] }
catalog: { tags: [sluice, fabio], claims: [{ service: "[bg]*", hosts: [h.example.com] }] }
`, consul.URL()))
	shows := func(want string) {
		t.Helper()
		r.await("the shares are "+want, func() bool {
			text := ""
			for _, route := range fetch[[]admin.Route](r, "/api/routes") {
				if route.Weighted == nil {
					continue
				}
				for _, target := range route.Weighted.Targets {
					text += fmt.Sprintf("%s%v %v of %d, now %v;", target.Service, target.Actions != nil, target.Share, target.UsablePeers, math.Round(1000*target.Present)/10)
				}
			}
			return text == want
		})
	}
	shows("bluefalse 0 of 3, now 75;greentrue 0 of 1, now 25;")
	// By chance a service with a quarter gets none of 200 requests once in 10²⁴ runs.
	got := make(map[string]int)
	for range 200 {
		status, body := r.get("h.example.com/x/y")
		verify.Require(t, status == http.StatusOK, "status %d: %s", status, body)
		got[body]++
	}
	verify.That(t, len(got) == 2 && got["blue/x/y"] > 0 && got["green/y"] > 0, "answers %v", got)
	consul.Set("blue", instance("blue", 1, blue, tag), discoverytest.Health(instance("blue", 2, blue, tag), api.HealthCritical, "down"))
	consul.Set("green", instance("green", 1, green, tag+" strip=/x weight=0.9"))
	shows("bluefalse 0 of 1, now 10;greentrue 0.9 of 1, now 90;")

	// Without any instance, each has its part: what only green restricts stays so for that
	// part.
	down := func(e *api.ServiceEntry) *api.ServiceEntry {
		return discoverytest.Health(e, api.HealthCritical, "down")
	}
	consul.Set("blue", down(instance("blue", 1, blue, tag)))
	consul.Set("green", down(instance("green", 1, green, tag+" allow=ip:10.0.0.1")))
	shows("bluefalse 0 of 0, now 50;greentrue 0 of 0, now 50;")
	statuses := make(map[int]int)
	for range 200 {
		status, _ := r.get("h.example.com/x/y")
		statuses[status]++
	}
	verify.That(t, len(statuses) == 2 && statuses[http.StatusServiceUnavailable] > 0 && statuses[http.StatusForbidden] > 0, "statuses %v", statuses)
}
