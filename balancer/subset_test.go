package balancer

import (
	"slices"
	"testing"

	"sluice/test/verify"
)

// Peers outside of the subset keep no connections and are no failure.
func TestPeersOutsideOfTheSubset(t *testing.T) {
	p := newTestPool(t, Options{NewTransport: newTestTransport}, instances(10)...)
	reconfigure := func(s Subset) { p.Reconfigure(complete(Options{NewTransport: newTestTransport, Subset: s})) }
	reconfigure(Subset{Size: 4, Replica: 1, Replicas: 3})
	s := p.Snapshot()
	verify.That(t, len(s.All) == 10 && len(s.Eligible) == 4 && s.Tiers[0] == (Tier{Peers: 10, Eligible: 4, Share: 1}), "snapshot %+v", s)
	for _, peer := range s.All {
		used := slices.Contains(s.Eligible, peer)
		drains := transportOf(peer).drains.Load()
		verify.That(t, peer.State() == StateUp && peer.Used() == used && (drains == 0) == used,
			"%v: state %v, used %v, want %v; drained %d times", peer, peer.State(), peer.Used(), used, drains)
	}
	requests(t, p, 100)
	// All of the subset fail: others take their place.
	var verdicts []Verdict
	for _, peer := range s.Eligible {
		verdicts = append(verdicts, Verdict{Peer: peer, Down: true})
	}
	p.SetReasons(ReasonEjected, verdicts...)
	requests(t, p, 100)
	verify.Equal(t, len(p.Snapshot().Eligible), 4, "eligible others")
	reconfigure(Subset{})
	verify.Equal(t, len(p.Snapshot().Eligible), 6, "eligible without subset")
}
