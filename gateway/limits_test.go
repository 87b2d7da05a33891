package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/admin/fleet"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// replicaSecret returns a file with the secret of replicas, which on one machine also need
// discovery.allow_local.
func replicaSecret(t *testing.T) (file string) {
	return writeFile(t, t.TempDir(), "secret", []byte("of the replicas"))
}

// The replicas exchange counts while a route has a limit of the fleet.
func TestFleetLimitsFollowTheConfiguration(t *testing.T) {
	t.Parallel()
	agent, own := shared.Agent(t)
	text := fmt.Sprintf("discovery: { allow_local: true }\nconsul: { addresses: [%q], register: { service: %s, replica_token_file: %q } }\nservices: { a: { peers: [%q] } }\nroutes: [{ service: a, rate_limit: { rate: 10, per: 1h, scope: SCOPE } }]\n",
		agent.URL(), own, replicaSecret(t), origin(t, "a"))
	a, b := start(t, strings.ReplaceAll(text, "SCOPE", "replica")), start(t, strings.ReplaceAll(text, "SCOPE", "fleet"))
	state := func(r *running) (report fleet.LimitsReport) {
		verify.Equal(t, r.api("/api/limits", &report), http.StatusOK, "status")
		return report
	}
	b.await("the other replica is seen", func() bool { r := state(b); return r.Replicas == 2 && r.Seen == 2 && len(r.Limits) == 1 })
	r := state(a)
	verify.That(t, r.Replicas == 1 && len(r.Limits) == 0 && !r.Fallback, "without a limit of the fleet: %+v", r)
	a.write(strings.ReplaceAll(text, "SCOPE", "fleet"))
	a.await("both see each other", func() bool { return state(a).Seen == 2 })
	admitted := 0
	a.await("both know that all is admitted", func() bool {
		for _, r := range []*running{a, b} {
			if status, _ := r.get("/"); status == http.StatusOK {
				admitted++
			}
		}
		heard := func(r *running) bool {
			l := state(r).Limits
			return len(l[0].Heaviest) == 1 && l[0].Heaviest[0].Debt >= 8
		} // some have come back
		return heard(a) && heard(b)
	})
	// One that has not heard of the other's requests yet gives itself all of the limit.
	verify.That(t, admitted >= 9 && admitted <= 16, "%d requests admitted, want 10, at most half as many again, and half of one more at each", admitted)
	a.write(strings.ReplaceAll(text, "SCOPE", "replica"))
	a.await("nobody is asked any more", func() bool { r := state(a); return r.Replicas == 1 && len(r.Others) == 0 && len(r.Limits) == 0 })
}

// A new process knows the other replicas from the old one, also while Consul is away: it has its
// part of the limit at once.
func TestFleetLimitsAcrossAnUpgrade(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	text := fmt.Sprintf("discovery: { allow_local: true }\nconsul: { addresses: [%q], register: { replica_token_file: %q } }\nservices: { a: { peers: [%q] } }\nroutes: [{ service: a, rate_limit: { rate: 10, per: 1h, scope: fleet } }]\n",
		agent.URL(), replicaSecret(t), origin(t, "a"))
	a, b := start(t, text), start(t, text)
	sees := func(r *running) bool { report := r.limits.Report(); return report.Replicas == 2 && report.Seen == 2 }
	a.await("both see each other", func() bool { return sees(a) && sees(b) })
	verify.NoError(t, agent.Stop())
	for range 2 {
		a = a.upgrade(text, nil)
		verify.Equal(t, a.limits.Report().Replicas, 2, "replicas that the new process knows")
		a.await("the new process sees the other one", func() bool { return sees(a) })
		verify.Equal(t, a.limits.Fleet.Standing().Seed, b.limits.Fleet.Standing().Seed, "the seed")
	}
}
