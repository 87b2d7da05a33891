package gateway

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/admin"
)

// patient is an origin that says whether it is healthy.
type patient struct {
	address string
	sick    atomic.Bool
	checks  atomic.Int32
}

func newPatient(t *testing.T, name string) *patient {
	p := new(patient)
	p.address = serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			p.checks.Add(1)
			if p.sick.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}
		fmt.Fprint(w, name)
	})
	return p
}

// judged is a service of these peers with a health section.
func judged(health string, peers ...string) string {
	return fmt.Sprintf("services: { a: { balance: { policy: round_robin }, peers: ['%s'], health: %s } }\nroutes: [{ service: a }]\n",
		strings.Join(peers, "', '"), health)
}

func TestActiveChecksTakeAPeerOutAndBack(t *testing.T) {
	good, bad := newPatient(t, "good"), newPatient(t, "bad")
	bad.sick.Store(true)
	active := "{ active: { path: /health, interval: 20ms, failing_interval: 10ms, timeout: 1m }, panic_threshold: 0 }"
	r := start(t, judged(active, good.address, bad.address))
	state := func(p *patient) string { return r.peers()[p.address].State }

	r.await("the sick peer is out", func() bool { return state(bad) == "unhealthy" })
	if got := r.peers()[bad.address].Reasons; len(got) != 1 || got[0] != "active: http GET /health: status 503, want 200-299" {
		t.Errorf("reasons %q", got)
	}
	for range 10 {
		if status, body := r.get("/"); status != 200 || body != "good" {
			t.Errorf("got %d %q", status, body)
		}
	}
	r.await("it is in the log", func() bool {
		return strings.Contains(r.log.String(), "up → unhealthy: active: http GET /health: status 503, want 200-299")
	})
	bad.sick.Store(false)
	r.await("it is back", func() bool { return state(bad) == "up" })

	// A reload keeps what is known, and without checks nobody is unhealthy.
	bad.sick.Store(true)
	r.await("it is out again", func() bool { return state(bad) == "unhealthy" })
	r.write(judged(strings.ReplaceAll(active, "20ms", "30ms"), good.address, bad.address))
	r.Reload()
	r.awaitRevision(2)
	if got := state(bad); got != "unhealthy" {
		t.Errorf("after a reload it is %s", got)
	}
	r.write(judged("{}", good.address, bad.address))
	r.Reload()
	r.awaitRevision(3)
	r.await("nobody is unhealthy", func() bool { return state(bad) == "up" })
	seen := bad.checks.Load() + good.checks.Load()
	r.get("/")
	if now := bad.checks.Load() + good.checks.Load(); now > seen+2 { // those that were under way
		t.Errorf("%d checks after they were turned off", now-seen)
	}
	for _, want := range []string{`sluice_health_checks_total{result="failed",service="a"} `, `sluice_health_checks_total{result="passed",service="a"} `} {
		if body := r.metrics(); !strings.Contains(body, want) || strings.Contains(body, want+"0\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// metrics returns what /metrics says.
func (r *running) metrics() string {
	r.t.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://"+r.Address("admin").String()+"/metrics", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	_, body := r.do(request)
	return body
}

// By default, a peer that fails is ejected, and its requests go elsewhere.
func TestFailuresEjectAPeer(t *testing.T) {
	good, dead := newPatient(t, "good"), "127.0.0.1:1"
	r := start(t, judged("{ passive: { ejection: 1h, max_ejection: 1h } }", good.address, dead))
	r.await("the dead peer is ejected", func() bool {
		if status, body := r.get("/"); status != 200 || body != "good" {
			t.Errorf("got %d %q", status, body)
		}
		return r.peers()[dead].State == "ejected"
	})
	got := r.peers()[dead].Reasons
	if len(got) != 1 || !strings.HasPrefix(got[0], "ejected: 5 failures in a row, the last: connect failure; for 1h0m0s until 20") {
		t.Errorf("reasons %q", got)
	}
	if want := `sluice_ejections_total{cause="consecutive_failures",service="a"} 1`; !strings.Contains(r.metrics(), want) {
		t.Errorf("metrics lack %s", want)
	}
}

// Where peers must pass a check first, sluice is ready when they had the chance
// to, and requests find those that did.
func TestReadyAfterTheFirstChecks(t *testing.T) {
	good, bad := newPatient(t, "good"), newPatient(t, "bad")
	bad.sick.Store(true)
	r := start(t, judged("{ active: { path: /health, interval: 1h, timeout: 1m, must_pass_first: true } }", good.address, bad.address))
	r.await("it is ready", func() bool { var v admin.Readiness; return r.api("/readyz", &v) == 200 })
	if bad.checks.Load() == 0 || good.checks.Load() == 0 {
		t.Error("it was ready before the first checks")
	}
	for range 4 {
		if status, body := r.get("/"); status != 200 || body != "good" {
			t.Errorf("got %d %q", status, body)
		}
	}
}

// What cannot be put to use is refused as a whole.
func TestACheckThatCannotBeMadeIsRefused(t *testing.T) {
	good := newPatient(t, "good")
	r := start(t, judged("{ active: { path: /health, interval: 10ms } }", good.address))
	missing := filepath.Join(t.TempDir(), "ca.pem")
	r.write(judged("{ active: { tls: { ca: "+missing+" } } }", good.address))
	r.Reload()
	r.await("it is refused", func() bool { return r.history.Reloads().Last != nil })
	if err := r.history.Reloads().Last.Err.Error(); !strings.Contains(err, `service "a": health.active: tls: trusted certificates: `) {
		t.Errorf("error %q", err)
	}
	seen := good.checks.Load()
	r.await("the old checks go on", func() bool { return good.checks.Load() > seen+1 })
}

// Until then it says what it waits for.
func TestReadinessNamesTheFirstChecks(t *testing.T) {
	hanging := serveOrigin(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	r := start(t, judged("{ active: { path: /health, timeout: 5m, must_pass_first: true } }", hanging))
	want := `service "a": its peers must pass a health check first, and not all have been checked`
	r.await("it says so", func() bool {
		var v admin.Readiness
		return r.api("/readyz", &v) == 503 && len(v.Missing) == 1 && v.Missing[0] == want
	})
}
