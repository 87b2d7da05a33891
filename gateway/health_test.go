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

// metrics returns the response to /metrics.
func (r *running) metrics() string { r.t.Helper(); return r.text("/metrics") }

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

// A container may get the port of one that has ended, whose registration is still there. As soon as
// checks hear who answers, no request comes there, also if nobody else is left.
func TestNoRequestGoesWhereAnotherServiceAnswers(t *testing.T) {
	t.Parallel()
	answers := func(name, says string) (address string, requests *atomic.Int64) {
		requests = new(atomic.Int64)
		return serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/health" {
				requests.Add(1)
			}
			w.Header().Set("X-Consul-Service", says)
			fmt.Fprint(w, name)
		}), requests
	}
	own, _ := answers("star", "star/star-1")
	other, requests := answers("moon", "moon/moon-1")
	consul := discoverytest.Start(t)
	consul.Set("star", discoverytest.Instance("star", "star-1", port(t, own)), discoverytest.Instance("star", "star-2", port(t, other)))
	r := start(t, strings.Replace(fmt.Sprintf(fromConsul, consul.URL()), "consul: {},",
		"consul: {}, health: { panic_threshold: 100%, active: { path: /health, interval: 10ms, failing_interval: 10ms, timeout: 1m } },", 1))
	r.await("it is known who answers", func() bool {
		p := r.peer("star-2")
		return !p.Used && slices.Contains(p.Reasons, `active: http GET /health: another service answers: "moon/moon-1"`)
	})
	before := requests.Load()
	for range 20 {
		r.gets("/", "star")
	}
	consul.Set("star", discoverytest.Instance("star", "star-2", port(t, other)))
	r.await("nobody is left", func() bool { status, _ := r.get("/"); return status == http.StatusServiceUnavailable })
	verify.Equal(t, requests.Load(), before, "requests that the other service has got since")
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
