package balancer

import (
	"slices"
	"testing"

	"sluice/discovery"
	"sluice/test/verify"
)

// subsets returns the peers that each replica uses, by number.
func subsets(t *testing.T, set []discovery.Instance, size, replicas int, out ...int) [][]string {
	t.Helper()
	var all [][]string
	for replica := range replicas {
		p := newTestPool(t, Options{Subset: Subset{Size: size, Replica: replica, Replicas: replicas}}, set...)
		for _, n := range out {
			setReason(p, set[n].Key(), ReasonEjected, true, "")
		}
		var used []string
		for _, peer := range p.Snapshot().Eligible {
			used = append(used, peer.Address())
		}
		all = append(all, used)
	}
	return all
}

// differences returns how many of a are not in b, at most and on average.
func differences(a, b [][]string) (most int, mean float64) {
	for i := range a {
		n := 0
		for _, s := range a[i] {
			if !slices.Contains(b[i], s) {
				n++
			}
		}
		most = max(most, n)
		mean += float64(n) / float64(len(a))
	}
	return most, mean
}

// The load of the peers is even: each is used by as many replicas as any other,
// give or take one.
func TestSubsetsAreEven(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ peers, size, replicas int }{
		{100, 20, 10}, {100, 20, 7}, {97, 20, 10}, {300, 30, 50}, {10, 3, 4}, {300, 20, 100}, {50, 49, 3},
	} {
		used := make(map[string]int)
		for _, subset := range subsets(t, instances(test.peers), test.size, test.replicas) {
			verify.Equal(t, len(subset), test.size, "%+v: a replica uses peers", test)
			for _, address := range subset {
				used[address]++
			}
		}
		least, most := test.replicas, 0
		for _, i := range instances(test.peers) {
			least, most = min(least, used[i.HostPort()]), max(most, used[i.HostPort()])
		}
		verify.That(t, most-least <= 1, "%+v: peers are used by %d to %d replicas", test, least, most)
	}
}

func TestSubsetsAreStable(t *testing.T) {
	set := instances(101)
	before := subsets(t, set[:100], 20, 10)
	verify.DeepEqual(t, subsets(t, set[:100], 20, 10), before, "the peers of replicas, again")
	expect := func(what string, after [][]string, want int) {
		t.Helper()
		most, mean := differences(before, after)
		verify.That(t, most <= want, "%s: a subset of 20 changes by %d, on average by %.1f; want at most %d", what, most, mean, want)
	}
	expect("one joins", subsets(t, set, 20, 10), 1)
	expect("one leaves", subsets(t, set[:99], 20, 10), 1)
	after := subsets(t, set[:100], 20, 10, 50)
	expect("one is ejected", after, 1)
	touched := 0
	for i := range before {
		verify.That(t, len(after[i]) == 20 && !slices.Contains(after[i], set[50].HostPort()), "replica %d uses %d peers, or the ejected one", i, len(after[i]))
		if !slices.Equal(before[i], after[i]) {
			touched++
		}
	}
	verify.That(t, touched == 2, "%d replicas use other peers, want the 2 that used the ejected one", touched)
}

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
