package gateway

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/observe/wake"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// of selects the queries for one service.
func of(service string) func(discoverytest.Request) bool {
	return func(r discoverytest.Request) bool { return r.Service == service }
}

// starAnd returns a configuration with the service star and others.
func starAnd(address, services string) string {
	return fmt.Sprintf("consul: { addresses: [%q] }\nservices:\n  star: { consul: {} }\n%s\nroutes: [{ service: star }]", address, services)
}

// progressAfter returns the readiness after a wait.
func (r *running) progressAfter(waited time.Duration) (ready bool, missing string) {
	v := r.readiness.progress(waited)
	return v.ready(), strings.Join(v.missing, "\n")
}

func TestReadyWithoutAServiceThatItsRegistryRefuses(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]discoverytest.Fault{
		"a status below 500":  {Status: http.StatusBadRequest, Body: "no such thing"},
		"a forbidden service": {Status: http.StatusForbidden, Body: "Permission denied"},
		"a hidden service":    {Filtered: true, Empty: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			consul, at := startStar(t, "a")
			refusal.Only = of("moon")
			consul.Break(refusal)
			r := startWithin(t, starAnd(consul.URL(), "  moon: { consul: {} }"), time.Millisecond)
			v := r.awaitReady()
			verify.That(t, v.Ready && len(v.Missing) == 1 && strings.HasPrefix(v.Missing[0], `service "moon": `), "readyz %+v", v)
			r.awaitLog(`"missing":["service \"moon\"`)
			consul.Set("moon", discoverytest.Instance("moon", "moon-1", port(t, at[0])))
			consul.Heal()
			r.await("nothing is missing", func() bool { status, v := r.readyz(); return status == 200 && len(v.Missing) == 0 })
		})
	}
}

func TestAServiceThatIsAddedDoesNotEndReadiness(t *testing.T) {
	t.Parallel()
	consul, _ := startStar(t, "a")
	r := startWithin(t, starAnd(consul.URL(), ""), time.Millisecond)
	r.awaitReady()
	consul.Break(discoverytest.Fault{Only: of("moon"), Status: http.StatusInternalServerError})
	r.replace(starAnd(consul.URL(), "  moon: { consul: {} }"))
	r.await("the query of moon has failed", func() bool { return r.services.watches()["moon"].Errors > 0 })
	status, v := r.readyz()
	verify.Equal(t, status, http.StatusOK, "readyz: %+v", v)
}

// Readiness waits for a service and for the catalog as long as nothing is known of them, but not
// for ever.
func TestReadinessWaitsForAnAnswer(t *testing.T) {
	t.Parallel()
	for failing, more := range map[string]string{"moon": "  moon: { consul: {} }", "": "catalog: {}"} {
		consul, _ := startStar(t, "a")
		consul.Break(discoverytest.Fault{Only: of(failing), Status: http.StatusInternalServerError, Body: "No path to datacenter"})
		r := startWithin(t, starAnd(consul.URL(), more), time.Millisecond)
		const missing = "No path to datacenter"
		r.await("star has a set, and the other query has failed", func() bool {
			_, m := r.progressAfter(0)
			return strings.Contains(m, missing) && !strings.Contains(m, "star")
		})
		ready, m := r.progressAfter(readyTimeout - 1)
		verify.That(t, !ready, "ready at once: %s", m)
		status, v := r.readyz()
		verify.That(t, status == 503 && len(v.Missing) == 1 && strings.Contains(v.Missing[0], missing), "%d %+v", status, v)
		ready, m = r.progressAfter(readyTimeout)
		verify.That(t, ready && strings.Contains(m, missing), "after %v: %v %s", readyTimeout, ready, m)
	}
}

// Without an answer from Consul and without a snapshot, a replica is not ready, even if other
// services have static peers.
func TestNotReadyWithoutAnyAnswer(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]discoverytest.Fault{
		"away":        {Drop: true},
		"no leader":   {NoLeader: true},
		"wrong token": {Status: http.StatusForbidden, Body: "ACL not found"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			consul, at := startStar(t, "a")
			consul.Break(fault)
			r := startWithin(t, starAnd(consul.URL(), "  moon: { consul: {} }\n  fixed: { peers: ["+at[0]+"] }"), time.Millisecond)
			r.await("both queries have failed repeatedly", func() bool {
				watches := r.services.watches()
				return watches["star"].Errors > refusalsLimit && watches["moon"].Errors > refusalsLimit && wake.Closed(r.services.get("fixed").first)
			})
			ready, missing := r.progressAfter(time.Hour)
			verify.That(t, !ready && strings.Count(missing, "\n") == 1, "ready %v, missing\n%s", ready, missing)
			consul.Heal()
			r.awaitReady()
		})
	}
}

// A real Consul answers an invalid filter with status 500.
func TestReadyWithAnInvalidFilter(t *testing.T) {
	t.Parallel()
	agent, _ := shared.Agent(t)
	r := startWithin(t, fmt.Sprintf(`
consul: { addresses: [%q] }
services:
  consul: { consul: {} }
  selector: { consul: { service: consul, filter: 'Service.Mta.version == "2"' } }
  syntax: { consul: { service: consul, filter: 'Service.Meta.version = "2"' } }
routes: [{ service: consul }]
`, agent.URL()), time.Millisecond)
	v := r.awaitReady()
	slices.Sort(v.Missing)
	verify.That(t, len(v.Missing) == 2 && strings.Contains(v.Missing[0], "is not valid") && strings.Contains(v.Missing[1], "no match found"), "readyz %q", v.Missing)
}

// Before Consul's first answer nobody knows whether there are instances. Then there are none. The
// routes of the file are known from the start: another path is 404.
func TestRefusalSaysThatNothingIsKnownYet(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	consul.Break(discoverytest.Fault{Drop: true})
	r := startWithin(t, strings.Replace(starAnd(consul.URL(), ""), "[{ service", "[{ path: /star, service", 1), time.Millisecond)
	status, body := r.get("/star")
	verify.That(t, status == 503 && strings.Contains(body, "nothing is known about the service's instances yet"), "before the first answer: %d %q", status, body)
	r.awaitStatus("/other", http.StatusNotFound)
	consul.Heal()
	r.await("an answer", func() bool { return r.watchOf("star").State == "fresh" })
	r.await("it says that there are none", func() bool {
		status, body := r.get("/star")
		return status == 503 && strings.Contains(body, "the service has no instances")
	})
}

// While nobody knows yet which routes tags ask for, a request without a route is not told that
// there is none: at a start, at one with a snapshot, and until the routes of a service are in use
// that the catalog has named already.
func TestNoAnswer404BeforeTheRoutesOfTagsAreKnown(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	tagged(t, consul, "moon", origin(t, "moon"), "sluice.route=/moon")
	tagged(t, consul, "sun", origin(t, "sun"), "sluice.route=/sun")
	text := fmt.Sprintf(`
consul: { addresses: [%q] }
discovery: { snapshot: %q }
catalog: { tags: [sluice], claims: [{ service: "*", hosts: ["*"] }] }
`, consul.URL(), filepath.Join(t.TempDir(), "snapshot"))
	for name, fault := range map[string]discoverytest.Fault{
		"no answer": {Drop: true}, "none about the catalog": {Only: of(""), Drop: true}, "none about a service": {Only: of("sun"), Drop: true},
	} {
		consul.Break(fault)
		r := startWithin(t, strings.Replace(text, `/snapshot"`, "/"+strings.ReplaceAll(name, " ", "-")+`"`, 1), time.Millisecond)
		r.await(name+": requests are served", func() bool {
			status, body := r.get("/sun")
			return status == 503 && strings.Contains(body, "does not know all routes")
		})
		consul.Heal()
		r.answers("/sun", "sun")
		r.awaitStatus("/other", http.StatusNotFound)
		r.end()
	}
	first := start(t, text)
	first.answers("/moon", "moon")
	first.answers("/sun", "sun")
	first.awaitStatus("/other", http.StatusNotFound)
	first.end()
	consul.Break(discoverytest.Fault{Drop: true})
	second := startWithin(t, text, time.Millisecond)
	second.answers("/moon", "moon")
	second.refuses("/new", http.StatusServiceUnavailable)
	consul.Heal()
	second.awaitStatus("/new", http.StatusNotFound)
}
