package balancer

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"sluice/test/long"
	"sluice/test/verify"
)

// scenarios are the results of a policy with ten peers, each with four workers, 10 ms per
// request on average, and a load of 60 %.
type scenarios struct {
	policy                                             Policy
	normal, slow, failing, hanging, replicas, sessions *result
	weightError                                        float64 // largest relative deviation of a share
}

func simulateScenarios(policy Policy, duration time.Duration) scenarios {
	typical := server{service: 10 * ms, workers: 4}
	base := simulation{policy: policy, rate: 2400, duration: duration, warmUp: duration / 4, servers: fleet(10, typical, nil)}
	with := func(f func(*simulation)) *result {
		s := base
		f(&s)
		return s.run()
	}
	last := func(f func(*server)) *result {
		return with(func(s *simulation) { s.servers = fleet(10, typical, f) })
	}
	all := scenarios{
		policy:   policy,
		normal:   with(func(*simulation) {}),
		slow:     last(func(s *server) { s.service *= 50 }),
		failing:  last(func(s *server) { s.class, s.service, s.workers = OutcomeConnectFailure, ms/10, 0 }),
		hanging:  last(func(s *server) { s.hangs = true }),
		replicas: with(func(s *simulation) { s.replicas = 20 }),
		sessions: with(func(s *simulation) { s.sessions = 1000 }),
	}
	weighted := with(func(s *simulation) {
		s.rate, s.duration = 1000, max(40*time.Second, duration)
		for i := range s.servers {
			s.servers[i].weight, s.servers[i].workers = i+1, 0
		}
	})
	for i, share := range weighted.shares {
		due := float64(i+1) / 55
		all.weightError = max(all.weightError, math.Abs(share-due)/due)
	}
	return all
}

func millis(d time.Duration) string {
	switch {
	case d > 30*time.Second: // the queue grows during the whole simulation
		return "over 30 s"
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f ms", float64(d)/float64(ms))
}

func percent(f float64) string {
	switch {
	case f > 0 && f < 0.0001:
		return "< 0.01 %"
	case f > 0 && f < 0.0995:
		return fmt.Sprintf("%.2g %%", f*100)
	}
	return fmt.Sprintf("%.0f %%", f*100)
}

// share returns n of all requests of r.
func (r *result) share(n int) float64 { return float64(n) / float64(sumOf(r.perServer)) }

func policyTable(all []scenarios) string {
	var b strings.Builder
	b.WriteString("| policy | normal: p50, p99 | one peer 50 × slower: p99, its share | one peer refuses: failed attempts | one peer hangs: its share | 20 replicas: p99 | weights 1 to 10: largest error | 1,000 sessions: requests that change the peer |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|\n")
	for _, s := range all {
		fmt.Fprintf(&b, "| `%s` | %s, %s | %s, %s | %s | %s | %s | %s | %s |\n", s.policy,
			millis(s.normal.quantile(.5)), millis(s.normal.quantile(.99)), millis(s.slow.quantile(.99)), percent(s.slow.shares[9]),
			percent(s.failing.share(s.failing.failures)), percent(s.hanging.shares[9]), millis(s.replicas.quantile(.99)),
			percent(s.weightError), percent(s.sessions.share(s.sessions.moves)))
	}
	return b.String()
}

// TestFigures checks the claims about policies in docs/balancing.md, and logs the figures.
func TestFigures(t *testing.T) {
	long.Sequential(t)
	t.Parallel()
	duration := long.Count(t, 6*time.Second, time.Minute)
	order := []Policy{PolicyEWMA, PolicyLeastConn, PolicyRoundRobin, PolicyRandom, PolicyHash, PolicySticky}
	verify.Equal(t, len(order), len(Policies()), "policies")
	byName := make(map[Policy]scenarios)
	var all []scenarios
	for _, policy := range order {
		s := simulateScenarios(policy, duration)
		all, byName[policy] = append(all, s), s
	}
	t.Log("\n" + policyTable(all))
	claim := func(what string, holds bool) {
		t.Helper()
		verify.That(t, holds, "wrong in docs/balancing.md: %s", what)
	}
	ewma, least, rr, hash, sticky := byName[PolicyEWMA], byName[PolicyLeastConn], byName[PolicyRoundRobin], byName[PolicyHash], byName[PolicySticky]
	p99 := func(r *result) time.Duration { return r.quantile(.99) }
	claim("with ewma one slow peer does not double p99", p99(ewma.slow) < 2*p99(ewma.normal))
	claim("with round_robin one slow peer multiplies p99 by ten", p99(rr.slow) > 10*p99(rr.normal))
	claim("least_conn is drawn to a peer that refuses, ewma avoids it",
		least.failing.share(least.failing.failures) > .15 && ewma.failing.share(ewma.failing.failures) < .01)
	claim("ewma avoids a peer that never answers", ewma.hanging.shares[9] < .001)
	claim("many replicas do not make ewma worse than taking turns", p99(ewma.replicas) < p99(rr.replicas)*5/4)
	claim("hash keeps nearly all requests of a session together", hash.sessions.share(hash.sessions.moves) < .1)
	claim("sticky keeps them all together", sticky.sessions.moves == 0)
	for _, s := range all {
		claim(fmt.Sprintf("%s respects weights", s.policy), s.weightError < .35)
	}
}
