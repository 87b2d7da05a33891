package simulation

import (
	"math/rand/v2"
	"slices"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/test/balancertest"
)

func (s *service) drawSubset(random *rand.Rand) {
	s.options.Subset = balancer.Subset{}
	if random.IntN(4) == 0 {
		replicas := 1 + random.IntN(5)
		s.options.Subset = balancer.Subset{Size: 1 + random.IntN(6), Replicas: replicas, Replica: random.IntN(replicas)}
	}
}

// choice is the peers of a tier and the used ones at one time.
type choice struct{ all, usable, used []*balancer.Peer }

// checkSubsets: each tier uses Subset.Size of its usable peers, and changes no more of them than
// necessary.
func (s *service) checkSubsets(all, usable, used [][]*balancer.Peer) {
	w, size := s.w, s.options.Subset.Size
	choices := make([]choice, len(all))
	for n := range all {
		choices[n] = choice{all[n], usable[n], used[n]}
		want := len(usable[n])
		if size > 0 && want > size {
			want = size
			w.counts["subset"]++
		}
		if len(used[n]) != want {
			w.violateLocked("%s: %d peers of tier %d are used, want %d of %d", s.name, len(used[n]), n, want, len(usable[n]))
		}
		for _, actual := range used[n] {
			if !slices.Contains(usable[n], actual) {
				w.violateLocked("%s: %s, used", s.peers[actual], actual.Reasons())
			}
		}
	}
	if size > 0 && s.chosen != nil && s.chosenAt.After(s.configure) {
		for n := range choices {
			s.checkStable(n, s.chosen[n], choices[n])
		}
	}
	s.chosen, s.chosenAt = choices, time.Now()
}

// checkStable: an unusable peer is replaced by another one until it is usable again. A
// joining or leaving peer changes at most two used peers.
func (s *service) checkStable(tier int, before, now choice) {
	replaced := without(before.used, now.used)
	moved := len(without(before.all, now.all)) + len(without(now.all, before.all))
	turned := 0
	for _, actual := range before.all {
		was, is := slices.Contains(before.usable, actual), slices.Contains(now.usable, actual)
		if slices.Contains(before.used, actual) && !is || !was && is {
			turned++
		}
	}
	if allowed := turned + 2*moved; len(replaced) > allowed {
		s.w.violateLocked("%s: %d peers of a subset in tier %d are others, allowed are %d", s.name, len(replaced), tier, allowed)
	}
}

func without(a, b []*balancer.Peer) []*balancer.Peer {
	return slices.DeleteFunc(slices.Clone(a), func(p *balancer.Peer) bool { return slices.Contains(b, p) })
}

// checkReplicas: replicas with the same set share it evenly, and the choice depends only on
// the number of the replica, not on its history. This applies if all peers are usable.
func (s *service) checkReplicas() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	snapshot, subset := s.pool.Snapshot(), s.options.Subset
	var set []discovery.Instance
	for _, actual := range snapshot.All {
		set = append(set, actual.Instance())
		if actual.Has(^balancer.Reason(0)) || !actual.Instance().Serving() {
			return
		}
	}
	if subset.Size == 0 || len(set) == 0 {
		return
	}
	s.w.counts["replicas compared"]++
	used := make(map[discovery.Key]int)
	for replica := range subset.Replicas {
		subset.Replica = replica
		pool := balancer.NewPool(s.name, balancertest.Complete(balancer.Options{Tiers: s.options.Tiers, Subset: subset}))
		pool.Apply(set)
		others := pool.Snapshot().Eligible
		for _, actual := range others {
			used[actual.ID]++
		}
		same := slices.EqualFunc(others, snapshot.Eligible, func(a, b *balancer.Peer) bool { return a.ID == b.ID })
		if replica == s.options.Subset.Replica && !same {
			s.w.violateLocked("%s: two replicas with the number %d use different peers", s.name, replica)
		}
		pool.Close()
	}
	for n, tier := range s.byTier(snapshot.All) {
		least, most := subset.Replicas, 0
		for _, actual := range tier {
			least, most = min(least, used[actual.ID]), max(most, used[actual.ID])
		}
		if most > least+1 {
			s.w.violateLocked("%s: peers of tier %d are used by %d to %d replicas", s.name, n, least, most)
		}
	}
}
