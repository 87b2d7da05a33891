package balancer

import (
	"testing"

	"sluice/test/verify"
)

// Each attempt of a request goes to another peer, with any weights, until all are tried.
func TestTriedPeersAreNotPickedAgain(t *testing.T) {
	for _, policy := range Policies() {
		for _, weights := range [][]int{{1}, {1, 1}, {1, 1, 1, 1}, {1000, 1, 1}, {5000, 5000, 5000, 1}} {
			p := newTestPool(t, Options{Policy: policy, RetryBudget: ampleRetries}, withWeights(weights...)...)
			for range 50 {
				var q Query
				for range weights {
					token, err := p.Pick(&q)
					verify.Require(t, err == nil, "%s %v: with %d tried: %v", policy, weights, q.Tried.Len(), err)
					verify.Require(t, !q.Tried.Has(token.Peer), "%s %v: picked a tried peer", policy, weights)
					q.Tried.Add(token.Peer)
					token.Done(Outcome{})
				}
				expectPick(t, p, &q, ErrAllTried)
			}
		}
	}
}

func TestTriedSet(t *testing.T) {
	var s TriedSet
	peers := make([]Peer, maxTried+1)
	for i := range peers[:maxTried] {
		verify.That(t, !s.Has(&peers[i]), "has peer %d before it was added", i)
		s.Add(&peers[i])
		s.Add(&peers[i])
		verify.That(t, s.Has(&peers[i]) && s.Len() == i+1,
			"after peer %d: has it: %v, length %d", i, s.Has(&peers[i]), s.Len())
	}
	s.Add(&peers[maxTried])
	verify.That(t, s.Len() == maxTried && !s.Has(&peers[0]) && s.Has(&peers[1]) && s.Has(&peers[maxTried]), "a full set must give up the peer that was added first, and no other")
}
