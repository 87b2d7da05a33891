package gateway

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/admin"
	"sluice/consultest"
	"sluice/discovery/discoverytest"
)

// of limits a fault to the queries for one service.
func of(service string) func(discoverytest.Request) bool {
	return func(r discoverytest.Request) bool { return r.Service == service }
}

// starAnd is a configuration with the service star, and those that follow.
func starAnd(address, services string) string {
	return fmt.Sprintf("consul: { addresses: [%q] }\nservices:\n  star: { consul: {} }\n%s\nroutes: [{ service: star }]", address, services)
}

// judged returns what is decided after so long a wait.
func (r *running) judged(waited time.Duration) (ready bool, missing string) {
	v := r.judge(waited)
	return v.ready(), strings.Join(v.missing, "\n")
}

func TestServiceThatItsRegistryRefusesKeepsNobodyUnready(t *testing.T) {
	for name, refusal := range map[string]discoverytest.Fault{
		"a status below 500":  {Status: http.StatusBadRequest, Body: "no such thing"},
		"a forbidden service": {Status: http.StatusForbidden, Body: "Permission denied"},
		"a hidden service":    {Filtered: true, Empty: true},
		"a filter that cannot be": {
			Status: http.StatusInternalServerError, Body: `Failed to create boolean expression evaluator: Selector "Service.Mta" is not valid`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			consul := discoverytest.Start(t)
			a := origin(t, "a")
			consul.Set("star", discoverytest.Instance("star", "star-1", port(t, a)))
			refusal.Only = of("moon")
			consul.Break(refusal)
			r := startPatient(t, starAnd(consul.URL(), "  moon: { consul: {} }"), time.Millisecond)
			var v admin.Readiness
			r.await("it is ready", func() bool { return r.api("/readyz", &v) == 200 })
			if !v.Ready || len(v.Missing) != 1 || !strings.HasPrefix(v.Missing[0], `service "moon": `) {
				t.Errorf("readyz %+v", v)
			}
			r.await("the log says so", func() bool { return strings.Contains(r.log.String(), `"missing":["service \"moon\"`) })
			consul.Set("moon", discoverytest.Instance("moon", "moon-1", port(t, a)))
			consul.Heal()
			r.await("nothing is missing", func() bool { return r.api("/readyz", &v) == 200 && len(v.Missing) == 0 })
		})
	}
}

func TestServiceWithoutAnAnswerIsWaitedForAWhile(t *testing.T) {
	consul := discoverytest.Start(t)
	consul.Set("star", discoverytest.Instance("star", "star-1", port(t, origin(t, "a"))))
	consul.Break(discoverytest.Fault{Only: of("moon"), Status: http.StatusInternalServerError, Body: "No path to datacenter"})
	r := startPatient(t, starAnd(consul.URL(), "  moon: { consul: {} }"), time.Millisecond)
	const missing = "No path to datacenter"
	r.await("star is known, and moon has failed", func() bool {
		_, m := r.judged(0)
		return strings.Contains(m, missing) && !strings.Contains(m, "star")
	})
	if ready, m := r.judged(readyTimeout - 1); ready {
		t.Errorf("ready at once: %s", m)
	}
	var v admin.Readiness
	if status := r.api("/readyz", &v); status != 503 || len(v.Missing) != 1 || !strings.Contains(v.Missing[0], missing) {
		t.Errorf("%d %+v", status, v)
	}
	if ready, m := r.judged(readyTimeout); !ready || !strings.Contains(m, missing) {
		t.Errorf("after %v: %v %s", readyTimeout, ready, m)
	}
}

// Whether Consul is away or the token is wrong: a replica that has no answer at
// all, and no saved set, has nothing to serve. Peers from the file do not change
// that.
func TestWithoutAnyAnswerItIsNeverReady(t *testing.T) {
	for name, fault := range map[string]discoverytest.Fault{
		"away":        {Drop: true},
		"no leader":   {NoLeader: true},
		"wrong token": {Status: http.StatusForbidden, Body: "ACL not found"},
	} {
		t.Run(name, func(t *testing.T) {
			consul := discoverytest.Start(t)
			a := origin(t, "a")
			consul.Set("star", discoverytest.Instance("star", "star-1", port(t, a)))
			consul.Break(fault)
			r := startPatient(t, starAnd(consul.URL(), "  moon: { consul: {} }\n  fixed: { peers: ["+a+"] }"), time.Millisecond)
			r.await("both have failed, and more than once", func() bool {
				watches := r.watches()
				return watches["star"].Errors > refusalsLimit && watches["moon"].Errors > refusalsLimit && watches["fixed"].Changes > 0
			})
			if ready, missing := r.judged(time.Hour); ready || strings.Count(missing, "\n") != 1 {
				t.Errorf("ready %v, missing\n%s", ready, missing)
			}
			consul.Heal()
			var v admin.Readiness
			r.await("it is ready once Consul has answered", func() bool { return r.api("/readyz", &v) == 200 })
		})
	}
}

// A catalog that cannot be read is like a service without an answer.
func TestCatalogWithoutAnAnswerIsWaitedForAWhile(t *testing.T) {
	consul := discoverytest.Start(t)
	consul.Set("star", discoverytest.Instance("star", "star-1", port(t, origin(t, "a"))))
	consul.Break(discoverytest.Fault{Only: of(""), Status: http.StatusForbidden, Body: "Permission denied"})
	r := startPatient(t, "catalog: {}\n"+starAnd(consul.URL(), ""), time.Millisecond)
	r.await("star is known, and the catalog has failed", func() bool {
		_, m := r.judged(0)
		return strings.Contains(m, "catalog: ") && strings.Contains(m, "403") && !strings.Contains(m, "star")
	})
	if ready, _ := r.judged(readyTimeout - 1); ready {
		t.Error("ready at once")
	}
	if ready, missing := r.judged(readyTimeout); !ready {
		t.Errorf("after %v: %s", readyTimeout, missing)
	}
}

// A real Consul, and a mistake in a filter, which it answers with 500.
func TestMistakeInAFilterKeepsNobodyUnready(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{})
	r := startPatient(t, fmt.Sprintf(`
consul: { addresses: [%q] }
services:
  consul: { consul: {} }
  selector: { consul: { service: consul, filter: 'Service.Mta.version == "2"' } }
  syntax: { consul: { service: consul, filter: 'Service.Meta.version = "2"' } }
routes: [{ service: consul }]
`, agent.URL()), time.Millisecond)
	var v admin.Readiness
	r.await("it is ready", func() bool { return r.api("/readyz", &v) == 200 })
	slices.Sort(v.Missing)
	if len(v.Missing) != 2 || !strings.Contains(v.Missing[0], "is not valid") || !strings.Contains(v.Missing[1], "no match found") {
		t.Errorf("readyz %q", v.Missing)
	}
}
