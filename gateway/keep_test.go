package gateway

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/discovery/discoverytest"
)

// Consul has lost an application's registrations and the application does not
// register again: its instances are used as long as they answer.
func TestPeersThatStillAnswerAreKeptWhenConsulHasLostThem(t *testing.T) {
	consul := discoverytest.Start(t)
	a, b := newPatient(t, "a"), newPatient(t, "b")
	entry := func(id string, p *patient) *api.ServiceEntry {
		return discoverytest.Instance("star", id, port(t, p.address))
	}
	consul.Set("star", entry("star-a", a), entry("star-b", b))
	r := start(t, fmt.Sprintf(`
consul: { addresses: [%q], empty_hold: 100ms, keep_answering: 1h }
services:
  star:
    consul: {}
    balance: { policy: round_robin }
    health: { active: { path: /health, interval: 20ms, failing_interval: 10ms, timeout: 1m } }
routes: [{ service: star }]
`, consul.URL()))
	served := func(want string) {
		t.Helper()
		got := make(map[string]bool)
		for range 10 {
			status, body := r.get("/")
			if status != 200 || !strings.Contains(want, body) {
				t.Fatalf("got %d %q, want one of %q", status, body, want)
			}
			got[body] = true
		}
		if len(got) != len(want) {
			t.Errorf("served by %v, want all of %q", got, want)
		}
	}
	unlisted := func(p *patient) bool { return r.peers()[p.address].Unlisted != nil }
	watch := func() admin.Watch {
		var services []admin.Service
		r.api("/api/services", &services)
		return *services[0].Watch
	}
	r.await("both are there", func() bool { return r.peers()[a.address].Used && r.peers()[b.address].Used })
	served("ab")

	consul.Set("star")
	r.await("they are unlisted", func() bool { return unlisted(a) && unlisted(b) })
	served("ab")
	if p := r.peers()[a.address]; p.State != "up" || len(p.Reasons) != 1 ||
		!strings.HasPrefix(p.Reasons[0], "consul: not listed in service any more since ") || !strings.HasSuffix(p.Reasons[0], ", still answers") {
		t.Errorf("peer %+v", p)
	}
	if w := watch(); w.State != "stale" || w.Unlisted != 2 || w.Held != 0 || !strings.Contains(w.LastError, "as long as they answer") {
		t.Errorf("watch %+v", w)
	}
	if want := `sluice_discovery_unlisted_instances{service="star"} 2`; !strings.Contains(r.metrics(), want) {
		t.Errorf("metrics lack %s", want)
	}
	// One that no longer answers gets nothing, and panic does not change that.
	b.sick.Store(true)
	r.await("the sick one is out", func() bool { return !r.peers()[b.address].Used })
	served("a")
	a.sick.Store(true)
	r.await("both are out", func() bool { return !r.peers()[a.address].Used })
	if status, _ := r.get("/"); status != 503 {
		t.Errorf("status %d without a peer that answers", status)
	}
	a.sick.Store(false)
	b.sick.Store(false)
	r.await("both are back", func() bool { return r.peers()[a.address].Used && r.peers()[b.address].Used })
	served("ab")

	// One registers again, and is in maintenance mode; then both are well.
	consul.Set("star", discoverytest.Maintenance(entry("star-a", a), "upgrade"))
	r.await("the drained one is out", func() bool { return r.peers()[a.address].Status == "maintenance" })
	served("b")
	consul.Set("star", entry("star-a", a), entry("star-b", b))
	r.await("all is as ever", func() bool {
		return watch().State == "fresh" && !unlisted(b) && r.peers()[a.address].Used
	})
	served("ab")
	for _, line := range []string{"they are used as long as they pass active checks", "no instance is used any more that consul does not list"} {
		if got := strings.Count(r.log.String(), line); got != 1 {
			t.Errorf("%d lines %q, want one", got, line)
		}
	}
}

// What was kept goes when that is turned off, and the check cannot go alone.
func TestKeepingPeersThatAnswerCanBeTurnedOff(t *testing.T) {
	consul := discoverytest.Start(t)
	a, b := newPatient(t, "a"), newPatient(t, "b")
	consul.Set("star",
		discoverytest.Instance("star", "star-a", port(t, a.address)),
		discoverytest.Instance("star", "star-b", port(t, b.address)))
	configuration := func(keep, health string) string {
		return fmt.Sprintf(`
consul: { addresses: [%q], empty_hold: 100ms, keep_answering: %s }
services: { star: { consul: {}, health: { %s } } }
routes: [{ service: star }]
`, consul.URL(), keep, health)
	}
	const checks = "active: { path: /health, interval: 20ms, timeout: 1m }"
	r := start(t, configuration("1h", checks))
	r.await("both are there", func() bool { return r.peers()[a.address].Used && r.peers()[b.address].Used })
	consul.Set("star")
	r.await("they are unlisted", func() bool { return r.peers()[a.address].Unlisted != nil })

	r.write(configuration("1h", ""))
	r.Reload()
	r.await("it is refused", func() bool { return r.history.Reloads().Last != nil })
	if err := r.history.Reloads().Last.Err.Error(); !strings.Contains(err, "only active checks tell whether an instance still answers, and services.star has none") {
		t.Errorf("error %q", err)
	}
	r.write(configuration("2h", checks))
	r.Reload()
	r.awaitRevision(2)
	for range 20 { // the new watch goes on with what the one before it kept
		if status, _ := r.get("/"); status != 200 {
			t.Fatalf("status %d after a change of the time", status)
		}
	}
	r.write(configuration("0s", ""))
	r.Reload()
	r.awaitRevision(3)
	r.await("they are gone", func() bool { return len(r.peers()) == 0 })
}
