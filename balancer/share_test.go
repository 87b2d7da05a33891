package balancer

import (
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

// gets counts attempts on the peers of p, as if they had answered.
func gets(p *Pool, counts ...uint64) {
	for i, peer := range p.Snapshot().All {
		peer.outcomes[OutcomeOK].Add(counts[i])
	}
}

// viewShares returns what a view says of each peer: due, is, why.
func viewShares(p *Pool) (due, is []float64, why []string) {
	for _, v := range p.ViewWithShares().Peers {
		s := v.Share
		due, is, why = append(due, s.Due), append(is, s.Is), append(why, strings.Join(s.Why, "; "))
	}
	return due, is, why
}

// A share is read lately, beside what the weight gives, and says why the two differ.
func TestShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{Limits: Limits{PeerRequests: 7}})
		defer p.Close()
		set := instances(3)
		set[0].Weight, set[1].Weight, set[2].Weight = 2, 1, 1
		p.Apply(set)
		expect := func(what string, wantIs []float64, wantWhy ...string) {
			t.Helper()
			due, is, why := viewShares(p)
			verify.Slices(t, due, []float64{.5, .25, .25}, "%s: due", what)
			verify.Slices(t, is, wantIs, "%s: is", what)
			verify.Slices(t, why, wantWhy, "%s: why", what)
		}
		// next counts attempts of the next window.
		next := func(counts ...uint64) {
			time.Sleep(time.Minute)
			p.View()
			time.Sleep(shareWindow)
			p.View()
			gets(p, counts...)
		}
		all := p.Snapshot().All
		gets(p, 10, 5, 4)
		expect("too few", []float64{-1, -1, -1}, "", "", "")
		next(50, 25, 25)
		expect("as due", []float64{.5, .25, .25}, "", "", "")
		next(50, 22, 28)
		expect("by chance", []float64{.5, .22, .28}, "", "", "")

		for i, latency := range []time.Duration{5 * ms, 5 * ms, 50 * ms} {
			all[i].latency.value.Store(math.Float64bits(float64(latency)))
		}
		next(660, 330, 10)
		expect("slower", []float64{.66, .33, .01}, "others get less", "others get less", "slower than the others: 50ms, usual is 5ms")
		all[2].resetLatency()

		next(93, 450, 450)
		all[0].load.Store(7)
		expect("at its limit", []float64{.1, .45, .45}, "at its limit of 7 requests", "others get less", "others get less")
		all[0].load.Store(0)

		setReason(p, set[1].Key(), ReasonEjected, true, "5 failures")
		next(666, 1, 333)
		expect("ejected", []float64{.666, .001, .333}, "others get less", "ejected: 5 failures", "others get less")
		setReason(p, set[1].Key(), ReasonEjected, false, "")
		p.SetFactors(Adjustment{Peer: all[1], By: .1, Why: "slow"})
		next(640, 40, 320)
		expect("lost weight", []float64{.64, .04, .32}, "others get less", "weight: slow", "others get less")
	})
}

// A peer that warms, or has just joined, has less than is due for that reason.
func TestSharesOfNewPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{SlowStart: SlowStart{Window: time.Minute, Aggression: 1, MinWeight: .1}})
		defer p.Close()
		set := instances(2)
		p.Apply(set[:1])
		time.Sleep(2 * time.Minute)
		p.View()
		p.Apply(set)
		time.Sleep(5 * time.Second)
		gets(p, 99, 1)
		_, is, why := viewShares(p)
		verify.Slices(t, is, []float64{.99, .01}, "is")
		verify.Equal(t, why[1], "warming for only 5 s; slow start: 10 % of its weight", "why")
		time.Sleep(25 * time.Second)
		_, _, why = viewShares(p)
		verify.Equal(t, why[1], "slow start: 50 % of its weight", "why")
	})
}

// Shares of a group are of its requests, those of a tier of what the tier has. A peer outside of
// the subset is due nothing.
func TestSharesOfParts(t *testing.T) {
	f := func(what string, o Options, want ...float64) {
		t.Helper()
		p := newTestPool(t, o)
		defer p.Close()
		p.Apply(withTags("a", "a", "b", "b", "b"))
		due, _, _ := viewShares(p)
		sum := 0.
		for i := range due {
			sum += due[i]
			verify.That(t, near(due[i], want[i]), "%s: due %v, want %v", what, due, want)
		}
	}
	f("groups", Options{Groups: byTag("a")}, .5, .5, 1./3, 1./3, 1./3)
	f("tiers", Options{Tiers: []Selector{{Tags: []string{"a"}}}}, .5, .5, 0, 0, 0)
	p := newTestPool(t, Options{Subset: Subset{Size: 2, Replicas: 2}}, instances(4)...)
	due, _, _ := viewShares(p)
	got := 0
	for i, peer := range p.Snapshot().All {
		verify.Equal(t, due[i], map[bool]float64{true: .5}[peer.Used()], "due of a peer in the subset %v", peer.Used())
		if peer.Used() {
			got++
		}
	}
	verify.Equal(t, got, 2, "peers in the subset")
}
