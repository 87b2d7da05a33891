package gateway

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// checkedOrigin is an origin whose health checks fail while failing is set.
type checkedOrigin struct {
	address string
	failing atomic.Bool
	checks  atomic.Int32
}

func newCheckedOrigin(t *testing.T, name string) *checkedOrigin {
	p := new(checkedOrigin)
	p.address = serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			p.checks.Add(1)
			if p.failing.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}
		fmt.Fprint(w, name)
	})
	return p
}

// checkedService returns a configuration with a health section and peers.
func checkedService(health string, peers ...string) string {
	return fmt.Sprintf("services: { a: { balance: { policy: round_robin }, peers: ['%s'], health: %s } }\nroutes: [{ service: a }]\n",
		strings.Join(peers, "', '"), health)
}

func TestActiveChecksChangeTheStateOfAPeer(t *testing.T) {
	t.Parallel()
	good, bad := newCheckedOrigin(t, "good"), newCheckedOrigin(t, "bad")
	bad.failing.Store(true)
	active := "{ active: { path: /health, interval: 20ms, failing_interval: 10ms, timeout: 1m }, panic_threshold: 0 }"
	r := start(t, checkedService(active, good.address, bad.address))
	state := func(p *checkedOrigin) string { return r.peers()[p.address].State }

	r.await("the failing peer is unhealthy", func() bool { return state(bad) == "unhealthy" })
	got := r.peers()[bad.address].Reasons
	verify.That(t, len(got) == 1 && got[0] == "active: http GET /health: status 503, want 200-299", "reasons %q", got)
	for range 10 {
		r.gets("/", "good")
	}
	r.awaitLog("up → unhealthy: active: http GET /health: status 503, want 200-299")
	bad.failing.Store(false)
	r.await("the peer is up", func() bool { return state(bad) == "up" })

	// A reload does not change the state of a peer. Without checks no peer is unhealthy.
	bad.failing.Store(true)
	r.await("the peer is unhealthy again", func() bool { return state(bad) == "unhealthy" })
	r.replace(checkedService(strings.ReplaceAll(active, "20ms", "30ms"), good.address, bad.address))
	verify.Equal(t, state(bad), "unhealthy", "after a reload it")
	r.replace(checkedService("{}", good.address, bad.address))
	r.await("no peer is unhealthy", func() bool { return state(bad) == "up" })
	seen := bad.checks.Load() + good.checks.Load()
	r.get("/")
	now := bad.checks.Load() + good.checks.Load()
	verify.That(t, now <= seen+2, "%d checks after they were disabled", now-seen) // checks in flight
	for _, want := range []string{`sluice_health_checks_total{result="failed",service="a"} `, `sluice_health_checks_total{result="passed",service="a"} `} {
		body := r.metrics()
		verify.That(t, strings.Contains(body, want) && !strings.Contains(body, want+"0\n"), "metrics lack %s", want)
	}
}

// metrics returns the response to /metrics.
func (r *running) metrics() string { r.t.Helper(); return r.text("/metrics") }

// By default a failing peer is ejected, and other peers get its requests.
func TestFailuresEjectAPeer(t *testing.T) {
	t.Parallel()
	good, dead := newCheckedOrigin(t, "good"), "127.0.0.1:1"
	r := start(t, checkedService("{ passive: { ejection: 1h, max_ejection: 1h } }", good.address, dead))
	r.await("the dead peer is ejected", func() bool {
		r.gets("/", "good")
		return r.peers()[dead].State == "ejected"
	})
	got := r.peers()[dead].Reasons
	verify.That(t, len(got) == 1 && strings.HasPrefix(got[0], "ejected: 5 failures in a row, the last: connect failure; for 1h0m0s until 20"), "reasons %q", got)
	want := `sluice_ejections_total{cause="consecutive_failures",service="a"} 1`
	verify.That(t, strings.Contains(r.metrics(), want), "metrics lack %s", want)
}

// A peer that fails more often than the others loses weight, says so in the API and the feed, and
// gets it back.
func TestFailuresTakeWeight(t *testing.T) {
	t.Parallel()
	var repaired atomic.Bool
	var requests atomic.Int32
	good := newCheckedOrigin(t, "good")
	bad := serveOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1)%2 == 0 && !repaired.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	r := start(t, checkedService("{ passive: { success_rate: {}, interval: 2s, ejection: 100ms, max_ejection: 100ms } }", good.address, bad))
	r.await("the bad peer has less weight", func() bool {
		var load sync.WaitGroup
		for range 50 { // at once: one after the other, a busy machine has few in an interval
			load.Go(func() { r.get("/") })
		}
		load.Wait()
		p := r.peers()[bad]
		return p.State == "warming" && strings.HasPrefix(p.Reasons[0], "weight: ") && strings.Contains(p.Reasons[0], " requests failed, 0 of ")
	})
	told := strings.Join(told(r.events, "a"), "\n")
	verify.That(t, strings.Contains(told, "peer.weight: "+bad+" is warming, it was up: weight: "), "the feed says\n%s", told)
	repaired.Store(true)
	r.await("the repaired peer has its weight again", func() bool {
		p := r.peers()[bad]
		return p.State == "up" && len(p.Reasons) == 0
	})
}

// With must_pass_first, sluice is ready after the first check of each peer, and says before what it
// waits for. Requests go to peers that passed.
func TestReadyAfterTheFirstChecks(t *testing.T) {
	t.Parallel()
	good, bad := newCheckedOrigin(t, "good"), newCheckedOrigin(t, "bad")
	bad.failing.Store(true)
	release := make(chan struct{})
	finish := sync.OnceFunc(func() { close(release) })
	late := serveOrigin(t, func(w http.ResponseWriter, _ *http.Request) { <-release; fmt.Fprint(w, "good") })
	t.Cleanup(finish)
	r := start(t, checkedService("{ active: { path: /health, interval: 1h, timeout: 5m, must_pass_first: true } }", good.address, bad.address, late))
	r.await("readyz names the checks", func() bool {
		status, v := r.readyz()
		return status == 503 && slices.Equal(v.Missing, []string{`service "a": its peers must pass a health check first, and some are not checked yet`})
	})
	finish()
	r.awaitReady()
	verify.That(t, bad.checks.Load() != 0 && good.checks.Load() != 0, "ready before the first checks")
	for range 4 {
		r.gets("/", "good")
	}
}

// A reload after which no peer must pass a check first lets requests to a peer whose first check
// has no result yet, at once.
func TestReloadEndsTheWaitForTheFirstCheck(t *testing.T) {
	t.Parallel()
	late := lateChecks(t)
	active := "{ active: { path: /health, interval: 1h, timeout: 5m, must_pass_first: true } }"
	r := start(t, checkedService(active, late))
	r.await("the peer waits for its check", func() bool { return slices.Equal(r.peers()[late].Reasons, []string{"active: not checked yet"}) })
	r.replace(checkedService(strings.Replace(active, "true", "false", 1), late))
	r.gets("/", "late")
}

// A reload that moves a service to another registry, and wants its peers to pass a check first from
// now on, fails no request: a peer that has been in use goes on, also under another name. A new one
// must pass.
func TestPeersThatMoveGoOn(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	known, added := lateChecks(t), lateChecks(t)
	instance := func(id, address string) *api.ServiceEntry { return discoverytest.Instance("a", id, port(t, address)) }
	consul.Set("a", instance("a-1", known))
	text := func(source, active string) string {
		return fmt.Sprintf("consul: { addresses: [%q] }\nservices: { a: { %s, health: { %s } } }\nroutes: [{ service: a }]\n", consul.URL(), source, active)
	}
	const first = "active: { path: /health, interval: 1h, timeout: 5m, must_pass_first: true }"
	r := start(t, text("peers: ["+known+"]", ""))
	r.gets("/", "late")
	for _, source := range []string{"consul: {}", "peers: [" + known + "]", "consul: {}"} {
		r.replace(text(source, first))
		r.await("the peers of "+source, func() bool { return (r.peers()[known].ID == "a-1") == (source == "consul: {}") })
		r.gets("/", "late", source)
	}
	consul.Set("a", instance("a-1", known), instance("a-2", added))
	r.await("the new peer waits for its check", func() bool { return slices.Equal(r.peers()[added].Reasons, []string{"active: not checked yet"}) })
	consul.Set("a", instance("a-3", known)) // another process
	r.await("it has replaced the other one", func() bool { return slices.Equal(r.peers()[known].Reasons, []string{"active: not checked yet"}) })
	r.checkLog()
}

// So it does with instances that ask for different routes, and that have registered in another
// order: the pool gets them before their routes are in use.
func TestPeersWithRoutesThatMoveGoOn(t *testing.T) {
	t.Parallel()
	consul, known, other := discoverytest.Start(t), lateChecks(t), lateChecks(t)
	instance := func(service, id, address, route string, registered uint64) *api.ServiceEntry {
		e := withTags(t, service, id, address, "sluice.route="+route)
		e.Service.ModifyIndex = registered
		return e
	}
	consul.Set("first", instance("first", "a-1", known, "h/", 1), instance("first", "a-2", other, "h/other", 2))
	consul.Set("next", instance("next", "b-1", known, "h/", 4), instance("next", "b-2", other, "h/other", 3))
	text := func(service, health string) string {
		return fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: { tags: [sluice], select: { name: none } }\nservices: { a: { consul: { service: %s }, health: { %s } } }\n", consul.URL(), service, health)
	}
	r := start(t, text("first", ""))
	r.answers("h/", "late")
	r.answers("h/other", "late")
	r.replace(text("next", "active: { path: /health, interval: 1h, timeout: 5m, must_pass_first: true }"))
	r.await("the peers of the next service", func() bool {
		r.gets("h/", "late")
		r.gets("h/other", "late")
		return r.peers()[known].ID == "b-1"
	})
	r.gets("h/", "late")
	r.gets("h/other", "late")
}

// lateChecks starts a peer whose checks get no answer while the test runs.
func lateChecks(t *testing.T) (address string) {
	release := make(chan struct{})
	address = serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		fmt.Fprint(w, "late")
	})
	t.Cleanup(func() { close(release) })
	return address
}

func TestOldChecksContinueAfterARefusedReload(t *testing.T) {
	t.Parallel()
	good := newCheckedOrigin(t, "good")
	r := start(t, checkedService("{ active: { path: /health, interval: 10ms } }", good.address))
	r.write(checkedService("{ active: { tls: { ca: "+filepath.Join(t.TempDir(), "ca.pem")+" } } }", good.address))
	r.Reload()
	r.await("the reload is refused", func() bool { return r.history.Reloads().Refused > 0 }) // more than 1 if the watch of the file saw it too
	seen := good.checks.Load()
	r.await("the old checks continue", func() bool { return good.checks.Load() > seen+1 })
}

// Two instances end at the same time: each reads a request, and closes its connection.
func TestTwoInstancesThatEndCostNoRequest(t *testing.T) {
	t.Parallel()
	var ended atomic.Int32
	ends := func(http.ResponseWriter, *http.Request) {
		ended.Add(1)
		panic(http.ErrAbortHandler)
	}
	r := start(t, checkedService("{ passive: { consecutive_failures: 0 } }", serveOrigin(t, ends), serveOrigin(t, ends), origin(t, "good")))
	r.awaitReady()
	r.await("a request has met both", func() bool {
		before := ended.Load()
		r.gets("/", "good")
		return ended.Load() == before+2
	})
}
