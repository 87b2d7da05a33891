package simulation

import (
	"math/rand/v2"
	"slices"
	"time"

	"sluice/balancer"
	"sluice/discovery"
)

// drawSubset chooses how many peers are used, and which replica this is.
func (s *service) drawSubset(random *rand.Rand) {
	s.options.Subset = balancer.Subset{}
	if random.IntN(4) == 0 {
		replicas := 1 + random.IntN(5)
		s.options.Subset = balancer.Subset{Size: 1 + random.IntN(6), Replicas: replicas, Replica: random.IntN(replicas)}
	}
}

// choice is the peers of a tier and which of them were used, at one time.
type choice struct{ all, usable, used []*balancer.Peer }

// checkSubsets: of those that can be used in each tier as many are used as
// Subset.Size says, and no more of them are others than before than must be.
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
			w.violate("%s: %d peers of tier %d are used, want %d of %d", s.name, len(used[n]), n, want, len(usable[n]))
		}
		for _, real := range used[n] {
			if !slices.Contains(usable[n], real) {
				w.violate("%s: %s, used", s.peers[real], real.Reasons())
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

// checkStable: another takes the place of a peer that cannot be used any more, and
// gives it back when it can. One that joins or leaves changes one at most, or two
// where some cannot be used.
func (s *service) checkStable(tier int, before, now choice) {
	replaced := without(before.used, now.used)
	moved := len(without(before.all, now.all)) + len(without(now.all, before.all))
	turned := 0
	for _, real := range before.all {
		was, is := slices.Contains(before.usable, real), slices.Contains(now.usable, real)
		if slices.Contains(before.used, real) && !is || !was && is {
			turned++
		}
	}
	if len(now.usable) < len(now.all) {
		moved *= 2 // see balancer.Subset
	}
	if allowed := turned + moved; len(replaced) > allowed {
		s.w.violate("%s: %d peers of a subset in tier %d are others, allowed are %d", s.name, len(replaced), tier, allowed)
	}
}

// without returns those of a that b has not.
func without(a, b []*balancer.Peer) []*balancer.Peer {
	return slices.DeleteFunc(slices.Clone(a), func(p *balancer.Peer) bool { return slices.Contains(b, p) })
}

// checkReplicas: replicas with the same set share it evenly, and this one uses
// what another would with its number, whatever has happened here. It holds where
// every peer can be used.
func (s *service) checkReplicas() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	snapshot, subset := s.pool.Snapshot(), s.options.Subset
	var set []discovery.Instance
	for _, real := range snapshot.All {
		set = append(set, real.Instance())
		if real.Has(^balancer.Reason(0)) || !real.Instance().Serving() {
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
		pool, err := balancer.NewPool(s.name, balancer.Options{Tiers: s.options.Tiers, Subset: subset})
		if err != nil {
			panic(err)
		}
		pool.Apply(set)
		others := pool.Snapshot().Eligible
		for _, real := range others {
			used[real.ID]++
		}
		same := slices.EqualFunc(others, snapshot.Eligible, func(a, b *balancer.Peer) bool { return a.ID == b.ID })
		if replica == s.options.Subset.Replica && !same {
			s.w.violate("%s: two replicas with the number %d use different peers", s.name, replica)
		}
		pool.Close()
	}
	for n, tier := range s.byTier(snapshot.All) {
		least, most := subset.Replicas, 0
		for _, real := range tier {
			least, most = min(least, used[real.ID]), max(most, used[real.ID])
		}
		if most > least+1 {
			s.w.violate("%s: peers of tier %d are used by %d to %d replicas", s.name, n, least, most)
		}
	}
}
