package balancer

import (
	"math"
	"testing"

	"sluice/test/verify"
)

// Many proxies that start together must not all begin with the same peer.
func TestRoundRobinStartsAtRandom(t *testing.T) {
	seen := make(map[string]bool)
	for range 50 {
		p := newTestPool(t, Options{Policy: PolicyRoundRobin}, instances(100)...)
		seen[mustPick(t, p, nil).Peer.ID.ID] = true
	}
	verify.That(t, len(seen) >= 10, "50 pools start with only %d different peers of 100", len(seen))
}

// A dead peer that is still eligible gets its share of the requests and no more: their retries
// do not change the turns.
func TestADeadPeerGetsOnlyItsTurns(t *testing.T) {
	for _, weights := range weightCases {
		if len(weights) == 1 {
			continue
		}
		p := newTestPool(t, Options{Policy: PolicyRoundRobin, RetryBudget: ampleRetries}, withWeights(weights...)...)
		total := sumOf(weights)
		all := p.Snapshot().All
		dead := all[0]
		const rounds = 200
		retries := make(map[*Peer]float64)
		for range rounds {
			met := 0
			for range total {
				var q Query
				if picked(t, p, &q) == dead {
					met++
					q.Tried.Add(dead)
					retries[picked(t, p, &q)]++
				}
			}
			verify.Require(t, met == weights[0], "%v: %d of %d requests meet the dead peer, want %d", weights, met, total, weights[0])
		}
		// The others share its load.
		n := float64(rounds * weights[0])
		for i, peer := range all[1:] {
			share := float64(weights[i+1]) / float64(total-weights[0])
			limit := 6*math.Sqrt(n*share*(1-share)) + .1*n // and the deviation of the fallback
			verify.That(t, math.Abs(retries[peer]-n*share) <= limit, "%v: %v of %v retries go to peer %d, want %.0f ± %.0f", weights, retries[peer], n, i+1, n*share, limit)
		}
	}
}
