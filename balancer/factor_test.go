package balancer

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
	"sluice/test/verify"
)

// What a peer gets is its weight times its factor and slow start, and a pick sees a change at once.
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
			p.SetFactors(Adjustment{Peer: all[0], By: 0.5, Why: "slow"}, Adjustment{Peer: all[1], By: 0.25})
			p.SetFactors(Adjustment{Peer: all[1], By: math.NaN()})
			weights := []float64{.5, .5, 2}
			for i, w := range weights {
				got := shareOf(t, p, set[i])
				verify.That(t, math.Abs(got-w/3) <= .04,
					"%s: share of peer %d: %.3f, want %.3f", policy, i, got, w/3)
			}
			by, why := all[0].Factor()
			verify.That(t, by == .5 && why == "slow", "factor %v because of %q", by, why)
			verify.Equal(t, all[0].Weight(), 1, "weight")
		})
	}
}

func TestFactorsAreBounded(t *testing.T) {
	p := newTestPool(t, Options{}, withWeights(discovery.MaxWeight, 1)...)
	defer p.Close()
	all := p.Snapshot().All
	for _, c := range []struct{ by, want float64 }{{0, minFactor}, {-1, minFactor}, {math.Inf(1), maxFactor}, {math.NaN(), maxFactor}, {1, 1}} {
		p.SetFactors(Adjustment{Peer: all[0], By: c.by})
		got, _ := all[0].Factor()
		verify.Equal(t, got, c.want, "factor after %v", c.by)
	}
}

// The health of a peer that leaves and returns before it has drained is known, also if it was found
// meanwhile.
func TestFactorsOfPeersThatLeave(t *testing.T) {
	set := withWeights(1, 1)
	p := newTestPool(t, Options{}, set...)
	defer p.Close()
	peer := p.Snapshot().All[1]
	p.SetFactors(Adjustment{Peer: peer, By: .5})
	token := pickPeer(t, p, set[1]) // so that the peer drains for a while
	p.Apply(set[:1])
	p.SetFactors(Adjustment{Peer: peer, By: .25})
	p.Apply(set)
	token.Done(Outcome{})
	by, _ := peer.Factor()
	verify.Equal(t, by, .25, "health after the return")
	p.Apply(set[:1])
	p.SetFactors(Adjustment{Peer: peer, By: .5})
	by, _ = peer.Factor()
	verify.Equal(t, by, .25, "health after it has drained")
}
