package simulation

import (
	"math"
	"math/rand/v2"
	"slices"

	"sluice/balancer"
	"sluice/discovery"
)

var possibleTiers = []balancer.Selector{
	{Tags: []string{"main"}},
	{Tags: []string{"main", "canary"}},
	{Meta: map[string]string{"zone": "a"}},
	{Tags: []string{"canary"}, Meta: map[string]string{"zone": "b"}},
	{Nodes: []string{"node-0"}},
}

// meets reports whether an instance, with labels of drawLabels, meets all conditions.
func meets(i discovery.Instance, s balancer.Selector) bool {
	untagged := slices.ContainsFunc(s.Tags, func(tag string) bool { return !slices.Contains(i.Tags, tag) })
	zoned := s.Meta == nil || s.Meta["zone"] == i.Meta["zone"]
	return !untagged && zoned && (s.Nodes == nil || slices.Contains(s.Nodes, i.Node))
}

func (s *service) drawTiers(random *rand.Rand) {
	s.options.Tiers = nil
	if random.IntN(3) > 0 {
		return
	}
	for _, n := range random.Perm(len(possibleTiers))[:1+random.IntN(3)] {
		s.options.Tiers = append(s.options.Tiers, possibleTiers[n])
	}
	s.options.Overprovisioning = pick(random, 1.4, 1, 1.2, 3)
}

// drawLabels sets the values of an instance that tiers use.
func drawLabels(random *rand.Rand, i *discovery.Instance) {
	i.Tags, i.Meta = nil, nil
	for _, tag := range []string{"main", "canary"} {
		if random.IntN(2) == 0 {
			i.Tags = append(i.Tags, tag)
		}
	}
	if random.IntN(3) > 0 {
		i.Meta = map[string]string{"zone": pick(random, "a", "b")}
	}
}

// tierOf returns the number of the first tier whose condition a peer meets, or of the last tier.
func (s *service) tierOf(actual *balancer.Peer) int {
	for n, t := range s.options.Tiers {
		if meets(actual.Instance(), t) {
			return n
		}
	}
	return len(s.options.Tiers)
}

// byTier splits peers by tier, in the same order.
func (s *service) byTier(peers []*balancer.Peer) [][]*balancer.Peer {
	if len(s.options.Tiers) == 0 {
		return [][]*balancer.Peer{peers}
	}
	tiers := make([][]*balancer.Peer, len(s.options.Tiers)+1)
	for _, actual := range peers {
		n := s.tierOf(actual)
		tiers[n] = append(tiers[n], actual)
	}
	return tiers
}

// checkTiers checks the used peers and the share of each tier. The peers of free are healthy,
// those of inPanic may be used in panic.
func (s *service) checkTiers(free, inPanic []*balancer.Peer) {
	w, snapshot := s.w, s.pool.Snapshot()
	all, sound := s.byTier(snapshot.All), s.byTier(free)
	room := s.room(all, sound)
	enough := float64(len(free)) >= s.options.PanicThreshold*float64(len(inPanic))
	if certain := len(s.options.Tiers) == 0 || math.Abs(sum(room)-1) > epsilon; certain {
		if panicking := !enough && !(len(s.options.Tiers) > 0 && sum(room) > 1); snapshot.Panic != panicking {
			w.violateLocked("%s: panic: %v with %d of %d, and room for %.3f", s.name, snapshot.Panic, len(free), len(inPanic), sum(room))
			return
		}
	}
	usable := sound
	if snapshot.Panic {
		usable = s.byTier(inPanic)
		if len(free) == 0 {
			room = s.room(all, usable)
		}
		w.counts["panic in tiers"] += min(len(s.options.Tiers), 1)
	}
	if len(snapshot.Tiers) != len(all) {
		w.violateLocked("%s: %d tiers, want %d", s.name, len(snapshot.Tiers), len(all))
		return
	}
	used := s.byTier(snapshot.Eligible)
	for n, t := range snapshot.Tiers {
		if t.Peers != len(all[n]) || t.Eligible != len(used[n]) {
			w.violateLocked("%s: tier %d has %d of %d peers, want %d of %d", s.name, n, t.Eligible, t.Peers, len(used[n]), len(all[n]))
		}
	}
	s.checkSubsets(all, usable, used)
	s.checkShares(room, snapshot.Tiers)
}

// epsilon is the tolerance of sums of shares.
const epsilon = 1e-9

// room returns the share of the requests for which each tier has capacity: its healthy share,
// times the overprovisioning factor, at most 1.
func (s *service) room(all, left [][]*balancer.Peer) []float64 {
	over := s.options.Overprovisioning
	capacity := func(peers []*balancer.Peer) (n float64) {
		for _, actual := range peers {
			n += float64(max(s.peers[actual].usual, 1))
		}
		return n
	}
	room := make([]float64, len(all))
	for n := range all {
		if len(all[n]) > 0 {
			room[n] = min(1, over*capacity(left[n])/capacity(all[n]))
		}
	}
	return room
}

// checkShares: a tier gets no more than its capacity, and nothing before the capacity of the
// tiers above it is used. Without capacity for all requests, the excess is spread in
// proportion.
func (s *service) checkShares(room []float64, tiers []balancer.Tier) {
	total, given := sum(room), 0.
	full := true // the tiers before
	for n, t := range tiers {
		fair := room[n] / min(1, max(total, epsilon))
		switch {
		case t.Share < 0 || t.Share > fair+epsilon:
			s.w.violateLocked("%s: tier %d gets %.3f, it has room for %.3f of %.3f", s.name, n, t.Share, room[n], total)
		case t.Share > epsilon && !full:
			s.w.violateLocked("%s: tier %d gets %.3f, though those before have room", s.name, n, t.Share)
		}
		given += t.Share
		full = full && t.Share >= fair-epsilon
		if n > 0 && t.Share > epsilon && t.Share < 1-epsilon {
			s.w.counts["tier overflows"]++
		}
	}
	if want := min(1, math.Ceil(total)); math.Abs(given-want) > epsilon {
		s.w.violateLocked("%s: the tiers get %.3f of the requests, want %v", s.name, given, want)
	}
}

// checkTierOfTry: a request goes to a tier without a share only after all peers of the tiers
// above it. First attempts are counted, to be compared with the shares.
func (s *service) checkTierOfTry(r *request, p *peer) {
	if len(s.options.Tiers) == 0 || r.group != "" || s.now().shifted() {
		return
	}
	snapshot := s.pool.Snapshot()
	n := s.tierOf(p.actual)
	if r.tries == 1 && r.query.Hash == 0 && s.options.Limits.PeerRequests == 0 {
		s.w.lots.drawn(snapshot.Tiers[0].Share, n == 0)
	}
	if snapshot.Tiers[n].Share > 0 || r.named() == p.actual {
		return
	}
	for _, actual := range snapshot.Eligible {
		limit := s.options.Limits.PeerRequests
		full := limit > 0 && actual.Inflight() >= limit
		if s.tierOf(actual) < n && !r.tried[actual] && !full {
			now := s.now()
			s.w.doubtLocked(func() bool { return now.shifted() || limit > 0 && now.others(r) },
				"request %d: on %s of tier %d, though %s of tier %d has not been tried", r.number, p, n, s.peers[actual], s.tierOf(actual))
		}
	}
	s.w.counts["next tier tried"]++
}

// lots compares the number of events with the expected number.
type lots struct{ got, expected, variance float64 }

func (l *lots) drawn(probability float64, hit bool) {
	if hit {
		l.got++
	}
	l.expected += probability
	l.variance += probability * (1 - probability)
}

func (l *lots) add(o lots) {
	l.got += o.got
	l.expected += o.expected
	l.variance += o.variance
}

// fair reports whether the difference is within six standard deviations, which is wrong once
// in 500 million times.
func (l *lots) fair() bool { return math.Abs(l.got-l.expected) <= 6*math.Sqrt(l.variance) }

func sum(of []float64) (total float64) {
	for _, x := range of {
		total += x
	}
	return total
}
