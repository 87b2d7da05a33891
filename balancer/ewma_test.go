package balancer

import (
	"math"
	"testing"
	"time"

	"sluice/test/verify"
)

// normal is a server with free capacity at the rates below.
var normal = server{service: 5 * ms, workers: 8}

// simulate sends 1,000 requests a second to ten servers for half a minute and
// counts those after the first five seconds.
func simulate(policy Policy, servers []server) *result {
	return simulation{policy: policy, rate: 1000, duration: 30 * time.Second, warmUp: 5 * time.Second, servers: servers}.run()
}

func TestOneSlowPeerDoesNotRaiseTheTail(t *testing.T) {
	without := simulate(PolicyEWMA, fleet(10, normal, nil))
	with := simulate(PolicyEWMA, fleet(10, normal, func(s *server) { s.service *= 50 }))
	verify.That(t, with.quantile(0.99) <= 2*without.quantile(0.99), "with one of ten peers 50 times slower %v, without %v; want p99 at most twice as high", with, without)
}

// A peer that never answers has no more requests in flight than the others.
func TestAStuckPeerIsAvoided(t *testing.T) {
	got := simulate(PolicyEWMA, fleet(10, normal, func(s *server) { s.hangs = true }))
	n := got.peers[9].Inflight()
	verify.That(t, n <= 20, "a stuck peer has %d requests; %v", n, got)
}

// A peer that fails at once is fast and idle, but must not get more requests.
func TestAFailingPeerIsAvoided(t *testing.T) {
	for _, class := range []OutcomeClass{OutcomeConnectFailure, OutcomeReset, OutcomeServerError} {
		got := simulate(PolicyEWMA, fleet(10, normal, func(s *server) { s.class, s.service = class, ms/10 }))
		verify.That(t, got.shares[9] <= 0.005, "%v: %d of %d requests failed; %v", class, got.failures, len(got.latencies), got)
	}
}

// A peer without a known latency gets neither too many nor too few requests.
func TestANewPeerGetsItsShare(t *testing.T) {
	const joins = 10 * time.Second
	got := simulation{
		policy: PolicyEWMA, rate: 4000, duration: joins + time.Second, warmUp: joins,
		servers: fleet(10, normal, func(s *server) { s.from = joins }),
	}.run()
	share := got.shares[9]
	verify.That(t, share >= 0.05 && share <= 0.2, "in its first second a new peer had a share of %.3f, want about 0.1", share)
	verify.That(t, got.quantile(0.99) <= 50*ms, "%v: too slow", got)
}

func TestFasterPeersGetMore(t *testing.T) {
	servers := append(fleet(5, normal, nil), fleet(5, server{service: 20 * ms, workers: 8}, nil)...)
	got := simulate(PolicyEWMA, servers)
	var slower float64
	for _, share := range got.shares[5:] {
		slower += share
	}
	verify.That(t, slower <= 0.35, "the half that is four times slower got %.2f of the requests", slower)
}

// A peer with one slow answer or a failure gets requests before the others are overloaded.
func TestAPeerThatWasSlowGetsRequestsUnderLoad(t *testing.T) {
	candidates := candidatesOf(1, 1)
	fast, slow := candidates[0].peer, candidates[1].peer
	fast.latency.observe(5*ms, begin)
	slow.latency.observe(time.Minute, begin)
	picker := newPicker(PolicyEWMA, &pickerInput{candidates: candidates})
	for range 1000 {
		picker.pick(Query{}, begin, nil).load.Add(1)
	}
	got := slow.Inflight()
	verify.That(t, got >= 1000/maxSlower-5 && got <= 1000/maxSlower+5, "%d of 1000 in flight on the slow peer, want about 1 in %d", got, maxSlower)
}

func TestAPeerThatWasSlowIsTriedAgain(t *testing.T) {
	candidates := candidatesOf(1, 1)
	fast, slow := candidates[0].peer, candidates[1].peer
	slow.latency.observe(250*ms, begin)
	picker := newPicker(PolicyEWMA, &pickerInput{candidates: candidates})
	pickedAt := func(now int64) bool {
		fast.latency.observe(5*ms, now)
		fast.load.Store(1)
		for range 20 {
			if picker.pick(Query{}, now, nil) == slow {
				return true
			}
		}
		return false
	}
	verify.That(t, !pickedAt(begin), "picked right after it was slow")
	verify.That(t, pickedAt(begin+4*int64(minDecay)), "not picked four seconds after it was slow")
}

func TestCompare(t *testing.T) {
	f := func(p, q *Peer, now int64, wantA, wantB float64) {
		t.Helper()
		a, b := compare(p, q, now)
		verify.That(t, near(a/b, wantA/wantB), "%v : %v, want %v : %v", a, b, wantA, wantB)
		a, b = compare(q, p, now)
		verify.That(t, near(a/b, wantB/wantA), "the other way round: %v : %v, want %v : %v", a, b, wantB, wantA)
	}
	known := func(latency time.Duration, end int64) *Peer {
		p := new(Peer)
		p.latency.observe(latency, end)
		return p
	}
	f(known(5*ms, begin), known(20*ms, begin), begin, 5, 20)
	f(known(5*ms, begin), known(time.Minute, begin), begin, 1, maxSlower)
	f(new(Peer), known(5*ms, begin), begin, 1, 1)
	f(new(Peer), new(Peer), begin, 1, 1)
	// An old latency does not count, whichever of the two it is.
	f(known(5*ms, 0), known(20*ms, begin), begin, 1, 1)
	f(known(5*ms, begin), known(20*ms, 0), begin, 1, 1)
	// The faster one wins, even if it has been idle for a while.
	after := begin + int64(minDecay)
	f(known(5*ms, begin), known(20*ms, after), after, 1, 1+3*math.Exp(-fasterAge))
	f(known(5*ms, after), known(20*ms, begin), after, 1, 1+3*math.Exp(-1))
}
