package balancer

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

// What a peer gets is its weight times all of its factors, and a pick sees a change at once.
func TestFactorsMultiplyWeights(t *testing.T) {
	for _, policy := range []Policy{PolicyRoundRobin, PolicyRandom} {
		synctest.Test(t, func(t *testing.T) {
			p := newTestPool(t, Options{Policy: policy, SlowStart: SlowStart{Window: 10 * time.Second, MinWeight: .5}})
			defer p.Close()
			set := withWeights(1, 2, 4)
			p.Apply(set[:2])
			time.Sleep(time.Minute)
			p.Apply(set) // the third is in slow start: 4 × 0.5
			all := p.Snapshot().All
			p.SetFactors(FactorLoad, Adjustment{Peer: all[0], By: 3}, Adjustment{Peer: all[1], By: math.NaN()})
			p.SetFactors(FactorHealth, Adjustment{Peer: all[0], By: 0.5, Why: "slow"}, Adjustment{Peer: all[1], By: 0.25})
			weights := []float64{1.5, .5, 2}
			for i, w := range weights {
				want := w / 4
				got := shareOf(t, p, set[i])
				verify.That(t, math.Abs(got-want) <= .04, "%s: share of peer %d: %.3f, want %.3f", policy, i, got, want)
			}
			by, why := all[0].Factor(FactorHealth)
			verify.That(t, by == .5 && why == "slow", "factor %v because of %q", by, why)
			verify.Equal(t, all[0].Weight(), 1, "weight")
		})
	}
}

func TestFactorsAreBounded(t *testing.T) {
	p := newTestPool(t, Options{})
	defer p.Close()
	p.Apply(withWeights(maxWeight, 1))
	all := p.Snapshot().All
	for _, c := range []struct{ by, want float64 }{{0, minFactor}, {-1, minFactor}, {math.Inf(1), maxFactor}, {math.NaN(), maxFactor}, {1, 1}} {
		p.SetFactors(FactorLoad, Adjustment{Peer: all[0], By: c.by})
		got, _ := all[0].Factor(FactorLoad)
		verify.Equal(t, got, c.want, "factor after %v", c.by)
	}
}

// The health of a peer that leaves and returns before it has drained is known, also if it was found meanwhile. What it
// reported is not: it may be another process.
func TestFactorsOfPeersThatLeave(t *testing.T) {
	p := newTestPool(t, Options{})
	defer p.Close()
	set := withWeights(1, 1)
	p.Apply(set)
	peer := p.Snapshot().All[1]
	p.SetFactors(FactorHealth, Adjustment{Peer: peer, By: .5})
	p.SetFactors(FactorLoad, Adjustment{Peer: peer, By: 2})
	var query Query
	query.Tried.Add(p.Snapshot().All[0])
	token, err := p.Pick(&query) // so that the peer drains for a while
	verify.That(t, err == nil && token.Peer == peer, "picked %v, %v", token.Peer, err)
	p.Apply(set[:1])
	p.SetFactors(FactorHealth, Adjustment{Peer: peer, By: .25})
	p.Apply(set)
	token.Done(Outcome{})
	by, _ := peer.Factor(FactorHealth)
	verify.Equal(t, by, .25, "health after the return")
	by, _ = peer.Factor(FactorLoad)
	verify.Equal(t, by, 1., "load after the return")
	p.Apply(set[:1])
	p.SetFactors(FactorHealth, Adjustment{Peer: peer, By: .5})
	by, _ = peer.Factor(FactorHealth)
	verify.Equal(t, by, .25, "health after it has drained")
}
