package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/admin/fleet"
	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/sluicetest"
	"sluice/test/verify"
)

// limitedClient sends requests to replicas at given rates, and counts those that are admitted.
type limitedClient struct {
	replicas []*sluicetest.Sluice
	client   http.Client
}

// send sends so many requests per second to each replica. late is by how much it was behind at
// most.
func (c *limitedClient) send(d time.Duration, perSecond func(elapsed time.Duration, replica int) float64) (admitted int, elapsed, late time.Duration) {
	var mu sync.Mutex // guards the results
	var requests sync.WaitGroup
	begin := time.Now()
	for i, r := range c.replicas {
		requests.Go(func() {
			const interval = 20 * time.Millisecond
			tick := time.NewTicker(interval)
			defer tick.Stop()
			due, ok, behind := 0.0, 0, time.Duration(0)
			for now := begin; now.Sub(begin) < d; {
				<-tick.C
				behind = max(behind, time.Since(now)-interval)
				due += perSecond(now.Sub(begin), i) * time.Since(now).Seconds()
				for now = time.Now(); due >= 1; due-- {
					if response, err := c.client.Get(r.URL()); err == nil {
						response.Body.Close()
						if response.StatusCode == http.StatusOK {
							ok++
						}
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			admitted += ok
			late = max(late, behind)
		})
	}
	requests.Wait()
	return admitted, time.Since(begin), late
}

// replicaSecret returns a file with the secret of replicas, which on one machine also need
// discovery.allow_local.
func replicaSecret(t *testing.T) (file string) {
	file = filepath.Join(t.TempDir(), "secret")
	verify.NoError(t, os.WriteFile(file, []byte("of the replicas"), 0o600))
	return file
}

func limitsOf(t *testing.T, s *sluicetest.Sluice) (r fleet.LimitsReport) {
	t.Helper()
	response := verify.Result(http.Get(s.AdminURL() + "/api/limits")).Must(t)
	defer response.Body.Close()
	verify.NoError(t, json.NewDecoder(response.Body).Decode(&r))
	return r
}

// Three processes keep a limit while traffic shifts between them, Consul is gone, and one of them
// is killed.
func TestFleetKeepsLimit(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	_, token, err := agent.NewToken("sluice", verify.Result(consultest.DocumentedPolicy("../docs/mesh.md", "## ACLs")).Must(t))
	verify.NoError(t, err)
	dir, peer, secret := t.TempDir(), origin(t, "star"), replicaSecret(t)
	verify.NoError(t, sluicetest.Build(t.Context(), dir, "sluice"))
	const rate, burst = 40, 20
	c := new(limitedClient)
	c.client.Transport = &http.Transport{MaxIdleConnsPerHost: 8}
	defer c.client.CloseIdleConnections()
	for i := range 3 {
		file := filepath.Join(dir, fmt.Sprintf("%d.yaml", i))
		verify.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
discovery: { allow_local: true }
consul: { addresses: [%q], token: %s, register: { check: { interval: 1s }, replica_token_file: %q } }
services: { star: { peers: [%q] } }
routes: [{ service: star, rate_limit: { rate: %d, burst: %d, scope: fleet } }]
`, agent.URL(), token.SecretID, secret, peer, rate, burst), 0o600))
		s, err := sluicetest.Start(t.Context(), sluicetest.Options{
			Program: filepath.Join(dir, "sluice"), Listen: sluicetest.Any, Admin: sluicetest.Any, Args: []string{"--config", file}, Log: filepath.Join(dir, fmt.Sprintf("%d.log", i)),
		})
		verify.NoError(t, err)
		t.Cleanup(func() {
			s.Kill()
			if t.Failed() {
				t.Logf("log of the process:\n%s", s.LogTail(20))
			}
		})
		c.replicas = append(c.replicas, s)
	}
	see := func(n int) {
		t.Helper()
		consultest.Await(t, fmt.Sprintf("%d replicas exchange counts", n), func() bool {
			for _, s := range c.replicas {
				if r := limitsOf(t, s); r.Replicas != n || r.Seen != n {
					return false
				}
			}
			return true
		})
	}
	each := long.Count(t, 5*time.Second, 30*time.Second)
	shifts := func(elapsed time.Duration, replica int) float64 {
		if int(4*elapsed/each)%len(c.replicas) == replica {
			return 3 * rate
		}
		return rate / 5
	}
	// Replicas that start at the same time may need more than a few seconds to agree on a seed, and
	// log that.
	see(3)
	fallbacks := func() int {
		log, err := os.ReadFile(filepath.Join(dir, "0.log"))
		verify.NoError(t, err)
		return bytes.Count(log, []byte(`"seen":`))
	}
	atFirst, slowest := fallbacks(), time.Duration(0)
	for _, step := range []struct {
		what   string
		change func()
	}{
		{"three replicas", func() {}},
		{"without Consul", func() { verify.NoError(t, agent.Stop()) }},
		{"one is killed", func() {
			verify.NoError(t, c.replicas[2].Kill())
			c.replicas = c.replicas[:2]
			see(2)
		}},
	} {
		step.change()
		for range 5 {
			admitted, elapsed, late := c.send(each, shifts)
			limit := rate * elapsed.Seconds()
			t.Logf("%s: %d admitted in %v, the rate allows %.0f; at most %v late", step.what, admitted, elapsed, limit, late)
			slowest = max(slowest, late)
			// After a shift, each replica has to hear of it.
			verify.That(t, float64(admitted) <= 1.05*(limit+burst)+rate, "%s: %d admitted, want %.0f", step.what, admitted, limit)
			if late < 200*time.Millisecond { // else not all requests were sent
				verify.That(t, float64(admitted) >= 0.95*limit-2*rate, "%s: %d admitted, want %.0f", step.what, admitted, limit)
				break
			}
		}
	}
	if slowest < time.Second { // else a replica may have stood still for long enough
		verify.Equal(t, fallbacks(), atFirst, "fallbacks that are logged")
	}
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
	ask := func() {
		for _, r := range []*running{a, b} {
			if status, _ := r.get("/"); status == http.StatusOK {
				admitted++
			}
		}
	}
	a.await("both know that all is admitted", func() bool {
		ask()
		for _, r := range []*running{a, b} {
			if l := state(r).Limits; len(l) != 1 || len(l[0].Heaviest) != 1 || l[0].Heaviest[0].Debt < 8 { // 9 may be taken, and some of them have come back
				return false
			}
		}
		return true
	})
	// One that has not heard of the other's requests yet gives itself all of the limit.
	verify.That(t, admitted >= 9 && admitted <= 16, "%d requests admitted, want 10, at most half as many again, and half of one more at each", admitted)
	before := admitted
	for range 10 {
		ask()
	}
	verify.That(t, admitted <= before+1, "%d requests admitted, and %d later", before, admitted-before)
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
