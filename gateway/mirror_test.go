package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"sluice/admin"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// Mirrors of a configuration send copies to services and groups, change live without a failed
// request, and keep their counters as long as a route has the same mirror.
func TestMirrorsOfRoutes(t *testing.T) {
	t.Parallel()
	marks := make(chan string, 100)
	next := serveOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		marks <- r.Method + " " + r.URL.Path + " " + r.Host + " " + r.Header.Get("X-Sluice-Mirror") + " " + r.Header.Get("X-Mine") + " " + string(body)
	})
	peer := origin(t, "star")
	text := func(mirror string) string {
		return fmt.Sprintf("%s\nservices: { star: { peers: [%q] }, star-next: { peers: [%q] } }\n", preamble, peer, next) +
			"routes: [{ path: /api, service: star, strip_prefix: /api, request_headers: { set: { X-Mine: $path } }, host_header: star.internal" + mirror + " }, { path: /, service: star }]\n"
	}
	r := start(t, text(", mirror: { service: star-next }"))
	mirror := func() *admin.Mirror { return fetch[[]admin.Route](r, "/api/routes")[0].Mirror }
	post := func() {
		t.Helper()
		response := verify.Result(r.client.Post(r.url("web")+"/api/x", "", strings.NewReader("body"))).Must(t)
		defer response.Body.Close()
		answer, err := io.ReadAll(response.Body)
		verify.Require(t, err == nil && string(answer) == "star", "got %q, %v", answer, err)
	}
	post()
	verify.Equal(t, <-marks, "POST /x star.internal star /x body", "the mirror")
	r.await("the copy ends", func() bool { m := mirror(); return m.Sent == 1 && m.InFlight == 0 })
	m := mirror()
	verify.That(t, m.Service == "star-next" && m.Share == 1 && m.BodyBytes == 64<<10 && m.Limit == 100 && m.Errors == 0 && len(m.Dropped) == 0, "the API has %+v", *m)

	stop := r.load("web")
	r.replace(text(", mirror: { service: star-next, share: 0 }"))
	post()
	m = mirror()
	verify.That(t, m.Sent == 1 && m.Share == 0, "with a share of 0: %+v", *m)
	r.replace(text(", mirror: { service: star-next, body: 3 }"))
	post()
	m = mirror()
	verify.That(t, m.Sent == 1 && m.Dropped["body_too_long"] == 1, "with a body of at most 3: %+v", *m)
	verify.Contains(t, r.metrics(), `sluice_mirror_dropped_total{group="",mirror="star-next",reason="body_too_long",service="star"} 1`, "the metrics do not have it")
	r.replace(text(""))
	post()
	verify.That(t, mirror() == nil && !strings.Contains(r.metrics(), "sluice_mirror"), "the mirror is not gone")
	verify.That(t, stop() != 0, "no requests")
}

// A group of the route's own service can be the mirror.
func TestMirrorToAGroup(t *testing.T) {
	t.Parallel()
	addresses := []string{origin(t, "rest"), origin(t, "canary")}
	consul := discoverytest.Start(t)
	versions(t, consul, addresses, "v1 v2")
	r := start(t, fmt.Sprintf(`%s
consul: { addresses: [%q] }
services: { star: { consul: {}, groups: { canary: { tags: [v2] } } } }
routes: [{ service: star, group: rest, mirror: { group: canary } }]
`, preamble, consul.URL()))
	for range 10 {
		r.gets("/", "rest")
	}
	r.await("ten requests and ten copies", func() bool {
		peers := r.peers()
		return peers[addresses[0]].Requests == 10 && peers[addresses[1]].Requests == 10
	})
	canary := fetch[[]admin.Service](r, "/api/services")[0].Groups[0]
	verify.That(t, canary.Group == "canary" && canary.Attempts == 0, "copies count for the group: %+v", canary)
}
