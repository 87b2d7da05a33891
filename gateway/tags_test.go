package gateway

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// withTags returns an instance at address.
func withTags(t *testing.T, service, id, address string, tags ...string) *api.ServiceEntry {
	t.Helper()
	e := discoverytest.Instance(service, id, port(t, address))
	e.Service.Tags = tags
	return e
}

// A service whose tags ask for routes gets its instances from elsewhere, and from Consul again. Its
// routes of tags go and come, and its others lead to the instances that it has.
func TestSourceOfATaggedServiceChanges(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	consul.Set("star", withTags(t, "star", "star-1", origin(t, "star"), "urlprefix-h/tag"))
	consul.Set("moon", withTags(t, "moon", "moon-1", origin(t, "moon"), "urlprefix-h/moon"))
	consul.Set("plain", withTags(t, "plain", "plain-1", origin(t, "plain")))
	text := func(source string) string {
		return fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: { tags: [fabio], select: { name: none } }\nservices: { star: { %s } }\nroutes: [{ path: /file, service: star }]\n", consul.URL(), source)
	}
	star, peers := "consul: {}", fmt.Sprintf("peers: [%q]", origin(t, "peer"))
	r := start(t, text(star))
	for _, to := range []struct{ source, peer, path string }{
		{star, "star", "h/tag"}, {peers, "peer", ""}, {star, "star", "h/tag"}, {"consul: { service: plain }", "plain", ""},
		{peers, "peer", ""}, {"consul: { service: moon }", "moon", "h/moon"},
	} {
		r.write(text(to.source))
		r.answers("h/file", to.peer)
		for _, path := range []string{"h/tag", "h/moon"} {
			if path == to.path {
				r.answers(path, to.peer)
			} else {
				r.awaitStatus(path, http.StatusNotFound)
			}
		}
	}
}

// All instances stop, and then one comes with other options for the route: the lost ones do not
// hold it.
func TestTagsAfterAllInstancesHaveStopped(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	stopped := func(id string) *api.ServiceEntry {
		return withTags(t, "star", id, "127.0.0.1:1", "urlprefix-h/api strip=/api")
	}
	consul.Set("star", stopped("a"), stopped("b"))
	r := start(t, fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: { tags: [fabio] }", consul.URL()))
	r.awaitStatus("h/api/x", http.StatusBadGateway)
	consul.Set("star")
	pool := r.services.get("star").pool
	r.await("both are on probation", func() bool {
		all := pool.Snapshot().All
		return len(all) == 2 && !all[0].Instance().Probation.IsZero() && !all[1].Instance().Probation.IsZero()
	})
	consul.Set("star", withTags(t, "star", "c", serveOrigin(t, func(http.ResponseWriter, *http.Request) {}), "urlprefix-h/api"))
	r.awaitStatus("h/api/x", http.StatusOK)
}

// Consul loses its state while the only instance that asks for a restricted route is critical. No
// broader route of another service, or of the same one, answers in its place, until the registry
// has the instance again; also not if sluice is restarted before, meanwhile or after, with a
// snapshot.
func TestLostRestrictionStays(t *testing.T) {
	t.Parallel()
	for _, restarts := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarts %t", restarts), func(t *testing.T) {
			t.Parallel()
			testLostRestriction(t, restarts)
		})
	}
}

func testLostRestriction(t *testing.T, restarts bool) {
	consul := discoverytest.Start(t)
	open, admins, staff, another := origin(t, "open"), origin(t, "admins"), origin(t, "staff"), origin(t, "another")
	wide := func() *api.ServiceEntry { return withTags(t, "open", "open-1", open, "sluice.route=h/") }
	critical := func(service, id, address, tag string) *api.ServiceEntry {
		return discoverytest.Health(withTags(t, service, id, address, tag), api.HealthCritical, "down")
	}
	const onlyAdmins, onlyStaff = "sluice.route=h/admin allow=192.0.2.1", "sluice.route=h/staff allow=192.0.2.1"
	consul.SetIndex(1000)
	consul.Set("open", wide(), critical("open", "staff-1", staff, onlyStaff))
	consul.Set("admins", critical("admins", "admins-1", admins, onlyAdmins))
	text := fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: { tags: [sluice] }\ndiscovery: { snapshot: %q }\nshutdown: { idle: 0s }",
		consul.URL(), filepath.Join(t.TempDir(), "snapshot"))
	r := start(t, text)
	r.answers("h/", "open")
	watches := func(condition func(admin.Watch) bool) func() bool {
		return func() bool { return condition(r.watchOf("open")) && condition(r.watchOf("admins")) }
	}
	cross := func(meanwhile func()) {
		t.Helper()
		if restarts {
			r.end()
			meanwhile()
			r = start(t, text)
			r.awaitReady()
			return
		}
		consul.Break(discoverytest.Fault{Drop: true})
		r.await("stale watches", watches(func(w admin.Watch) bool { return w.State == "stale" }))
		meanwhile()
		consul.Heal()
	}
	restricted := func(when string) {
		t.Helper()
		r.refuses("h/admin/x", http.StatusForbidden, when)
		r.refuses("h/staff/x", http.StatusForbidden, when)
		r.gets("h/", "open", when)
	}
	known := func(service string) { // what Consul has said now: later routes are in use
		t.Helper()
		r.await("answers", watches(func(w admin.Watch) bool { return w.State == "fresh" && 0 < w.Index && w.Index < 1000 }))
		consul.Set(service, withTags(t, service, service+"-1", another, "sluice.route=h/"+service))
		r.answers("h/"+service, "another")
	}
	restricted("before")
	cross(func() { consul.Lose(10, "open") })
	known("later")
	restricted("after the loss")
	r.await("the peer says since when it is lost", func() bool {
		peer := r.peers()[admins]
		return !peer.Used && peer.Status == "critical" && len(peer.Reasons) == 1 && strings.HasPrefix(peer.Reasons[0], "consul: critical: lost since ")
	})
	cross(func() { consul.Set("open", wide()) })
	known("last")
	restricted("as one of two instances has returned")

	consul.Set("admins", critical("admins", "admins-1", admins, "sluice.route=h/other"))
	r.answers("h/admin/x", "open")
	r.refuses("h/staff/x", http.StatusForbidden)
}

// A configuration that is refused changes nothing, also not which tags are read.
func TestRefusedConfigurationKeepsTheTagReader(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	a := origin(t, "a")
	set := func(host string) {
		e := discoverytest.Instance("star", "star-1", port(t, a))
		e.Service.Meta = map[string]string{"sluice_route": host + "/"}
		consul.Set("star", e)
	}
	set("one.example.com")
	text := func(tags, more string) string {
		return fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: { tags: [%s] }\nservices: { star: { consul: {} } }\nroutes: [{ host: file.example.com, service: star%s }]",
			consul.URL(), tags, more)
	}
	r := start(t, text("sluice, fabio", ""))
	serves := func(host string) bool { status, _ := r.get(host + "/"); return status == http.StatusOK }
	r.await("the first route", func() bool { return serves("one.example.com") })
	r.write(text("fabio", ", basic_auth: { users_file: /nonexistent/users }"))
	r.Reload()
	r.awaitState(r.file, "refused")
	set("two.example.com")
	r.await("the route of the changed instance", func() bool { return serves("two.example.com") })
	verify.That(t, !serves("one.example.com"), "the former route is still there")

	r.replace(text("fabio", "")) // accepted: sluice's own tags are not read any more
	r.await("no route", func() bool { return !serves("two.example.com") })
	r.replace(text("fabio, sluice", ""))
	r.await("the route again", func() bool { return serves("two.example.com") })
}
