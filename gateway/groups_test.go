package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// versions registers instances of the service star, each with the version at its place in
// tags.
func versions(t *testing.T, consul *discoverytest.Consul, addresses []string, tags string) {
	t.Helper()
	var entries []*api.ServiceEntry
	for i, tag := range strings.Fields(tags) {
		e := discoverytest.Instance("star", fmt.Sprintf("star-%d", i), port(t, addresses[i]))
		e.Service.Tags = []string{tag}
		entries = append(entries, e)
	}
	consul.Set("star", entries...)
}

// A route has a group of its own, a split of its own, or that of its service. A group can be a
// mirror: copies do not count for it.
func TestRoutesOfGroups(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	addresses := []string{origin(t, "old"), origin(t, "new")}
	versions(t, consul, addresses, "v1 v2")
	r := start(t, preamble+fmt.Sprintf(`
consul: { addresses: [%q] }
services:
  star:
    consul: {}
    groups: { canary: { tags: [v2] }, none: { meta: { a: b } } }
    split: { canary: 100%% }
routes:
  - { path: /, service: star }
  - { path: /old, service: star, group: rest }
  - { path: /split, service: star, split: { canary: 0%% } }
  - { path: /none, service: star, group: none }
  - { path: /back, service: star, split: { none: 100%%, fallback: canary } }
  - { path: /mirrored, service: star, group: rest, mirror: { group: canary } }
`, consul.URL()))
	for path, want := range map[string]string{"/": "new", "/old": "old", "/split": "old", "/back": "new"} {
		for range 5 {
			r.gets(path, want)
		}
	}
	status, body := r.get("/none")
	verify.That(t, status == http.StatusServiceUnavailable && strings.Contains(body, "group"), "an empty group: %d %q", status, body)
	r.gets("/mirrored", "old")
	r.await("the copy", func() bool { return r.peers()[addresses[1]].Requests == 11 })
	canary := fetch[[]admin.Service](r, "/api/services")[0].Groups[0]
	verify.That(t, canary.Group == "canary" && canary.Attempts == 10, "copies count for the group: %+v", canary)
}

// While the first set of a service that a reload adds is not there yet, the former routes lead to
// the groups that they had, and no further.
func TestFormerRoutesKeepTheirGroups(t *testing.T) {
	t.Parallel()
	for what, next := range map[string]string{
		"renamed": "{ star: { consul: {}, groups: { next: { tags: [v2] } } }, NEW }\nroutes: [{ path: /new, service: star, group: next }, { path: /added, service: added }]",
		"gone":    "{ star: { consul: {} }, NEW }\nroutes: [{ path: /new, service: added }]",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			consul := discoverytest.Start(t)
			versions(t, consul, []string{origin(t, "old"), origin(t, "new")}, "v1 v2")
			checked, allow := make(chan struct{}), make(chan struct{})
			check := sync.OnceFunc(func() { close(checked) })
			added := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/health" {
					check()
					<-allow
				}
				io.WriteString(w, "new")
			})
			head := fmt.Sprintf("%s\nconsul: { addresses: [%q] }\nservices: ", preamble, consul.URL())
			r := start(t, head+"{ star: { consul: {}, groups: { canary: { tags: [v2] } } } }\nroutes: [{ path: /new, service: star, group: canary }]")
			open := sync.OnceFunc(func() { close(allow) })
			t.Cleanup(open)
			r.gets("/new", "new")
			r.write(head + strings.ReplaceAll(next, "NEW", "added: { peers: ['"+added+"'], health: { active: { path: /health, interval: 1h, timeout: 5m, must_pass_first: true } } }"))
			<-checked
			for range 10 {
				r.gets("/new", "new", "by the former route")
			}
			open()
			r.awaitRevision(2)
			for range 10 {
				r.gets("/new", "new", "by the next route")
			}
		})
	}
}

// A route with several services divides its clients among them, and shows how; shares change
// live without a failed request, and a service without peers gives its share to the others.
func TestServicesOfARoute(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	text := func(shares string) string {
		return fmt.Sprintf("services: { a: { peers: [%q] }, b: { peers: [%q] } }\n", a, b) +
			"routes: [{ path: /, services: { " + shares + ", key: header X-User }, mirror: { service: b, share: 0 } }]\n"
	}
	r := start(t, text("a: 20%, b: 80%"))
	stop := r.load("web")
	served := func() (count map[string]int) {
		count = make(map[string]int)
		for i := range 50 {
			_, answer := r.send(http.MethodGet, r.url("web"), "X-User", fmt.Sprintf("user-%d", i))
			count[answer]++
		}
		return count
	}
	// The hash of these users is always the same.
	first := served()
	verify.That(t, first["a"] >= 3 && first["b"] >= 25, "the services got %v", first)
	verify.Contains(t, r.metrics(), `sluice_mirror_requests_total{class="2xx",group="",mirror="b",service="a"} 0`, "the mirror of a")
	verify.Contains(t, r.metrics(), `sluice_route_share{group="",host="",path="/",service="b"} 0.8`, "the share")

	r.replace(text("a: 100%, b: 0%"))
	verify.Equal(t, served()["a"], 50, "only of a")
	r.replace(text("a: 90%, b: 10%"))
	r.drain("a", a)
	verify.Equal(t, served()["b"], 50, "without peers of a")
	w := fetch[[]admin.Route](r, "/api/routes")[0].Weighted
	verify.That(t, w.Key == "header x-user" && w.Targets[0].Share == .9 && w.Targets[0].Present == 0 && w.Targets[1].Present == 1, "the API has %+v", w)
	verify.That(t, stop() != 0, "no requests")
}

// Mirrors send copies, change live without a failed request, and keep their counters as long as a
// route has the same mirror.
func TestMirrorsOfRoutes(t *testing.T) {
	t.Parallel()
	marks := make(chan string, 100)
	next := serveOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		marks <- r.Method + " " + r.URL.Path + " " + r.Header.Get("X-Sluice-Mirror") + " " + string(body)
	})
	peer := origin(t, "star")
	text := func(mirror string) string {
		return fmt.Sprintf("services: { star: { peers: [%q] }, star-next: { peers: [%q] } }\n", peer, next) +
			"routes: [{ path: /api, service: star, strip_prefix: /api" + mirror + " }, { path: /, service: star }]\n"
	}
	r := start(t, text(", mirror: { service: star-next }"))
	mirror := func() *admin.Mirror { return fetch[[]admin.Route](r, "/api/routes")[0].Mirror }
	post := func() {
		t.Helper()
		verify.Equal(t, r.do(r.request(http.MethodPost, r.url("web")+"/api/x", strings.NewReader("body"))).body, "star", "the answer")
	}
	post()
	verify.Equal(t, <-marks, "POST /x star body", "the mirror")
	r.await("the copy ends", func() bool { m := mirror(); return m.Sent == 1 && m.InFlight == 0 })
	stop := r.load("web")
	r.replace(text(", mirror: { service: star-next, body: 3 }"))
	post()
	m := mirror()
	verify.That(t, m.Sent == 1 && m.BodyBytes == 3 && m.Dropped["body_too_long"] == 1, "with a body of at most 3: %+v", *m)
	r.replace(text(""))
	post()
	verify.That(t, mirror() == nil && !strings.Contains(r.metrics(), "sluice_mirror"), "the mirror is not gone")
	verify.That(t, stop() != 0, "no requests")
}
