package simulation

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"sluice/balancer"
	"sluice/discovery"
)

// tier is a condition for a tier, in the words of the pool and in others.
type tier struct {
	selector balancer.Selector
	has      func(discovery.Instance) bool
}

var possibleTiers = []tier{
	{balancer.Selector{Tags: []string{"main"}}, func(i discovery.Instance) bool {
		return slices.Contains(i.Tags, "main")
	}},
	{balancer.Selector{Tags: []string{"main", "canary"}}, func(i discovery.Instance) bool {
		return slices.Contains(i.Tags, "canary") && slices.Contains(i.Tags, "main")
	}},
	{balancer.Selector{Meta: map[string]string{"zone": "a"}}, func(i discovery.Instance) bool {
		return i.Meta["zone"] == "a"
	}},
	{balancer.Selector{Tags: []string{"canary"}, Meta: map[string]string{"zone": "b"}}, func(i discovery.Instance) bool {
		return i.Meta["zone"] == "b" && slices.Contains(i.Tags, "canary")
	}},
	{balancer.Selector{Nodes: []string{"node-0"}}, func(i discovery.Instance) bool { return i.Node == "node-0" }},
}

// drawTiers chooses tiers and what they have room for.
func (s *service) drawTiers(random *rand.Rand) {
	s.tiers, s.options.Tiers = nil, nil
	if random.IntN(3) > 0 {
		return
	}
	for _, n := range random.Perm(len(possibleTiers))[:1+random.IntN(3)] {
		s.tiers = append(s.tiers, possibleTiers[n])
		s.options.Tiers = append(s.options.Tiers, possibleTiers[n].selector)
	}
	s.options.Overprovisioning = pick(random, 0, 1, 1.2, 3)
}

// drawLabels gives an instance what tiers go by.
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

// tierOf returns the number of the first tier whose condition a peer meets, or
// that of the last one, for all others.
func (s *service) tierOf(real *balancer.Peer) int {
	i := real.Instance()
	for n, t := range s.tiers {
		if t.has(i) {
			return n
		}
	}
	return len(s.tiers)
}

// byTier divides peers, in the same order.
func (s *service) byTier(peers []*balancer.Peer) [][]*balancer.Peer {
	if len(s.tiers) == 0 {
		return [][]*balancer.Peer{peers}
	}
	tiers := make([][]*balancer.Peer, len(s.tiers)+1)
	for _, real := range peers {
		n := s.tierOf(real)
		tiers[n] = append(tiers[n], real)
	}
	return tiers
}

// checkTiers: who is used, in which tier, and what share each tier gets, when
// nothing speaks against free, and inPanic may be used in panic.
func (s *service) checkTiers(free, inPanic []*balancer.Peer) {
	w, snapshot := s.w, s.pool.Snapshot()
	all, sound := s.byTier(snapshot.All), s.byTier(free)
	room := s.room(all, sound)
	enough := float64(len(free)) >= s.options.PanicThreshold*float64(len(inPanic))
	if certain := len(s.tiers) == 0 || math.Abs(sum(room)-1) > epsilon; certain {
		if panic := !enough && !(len(s.tiers) > 0 && sum(room) > 1); snapshot.Panic != panic {
			w.violate("%s: panic: %v with %d of %d, and room for %.3f", s.name, snapshot.Panic, len(free), len(inPanic), sum(room))
			return
		}
	}
	usable := sound
	if snapshot.Panic {
		usable = s.byTier(inPanic)
		if len(free) == 0 {
			room = s.room(all, usable)
		}
		w.counts["panic in tiers"] += min(len(s.tiers), 1)
	}
	if len(snapshot.Tiers) != len(all) {
		w.violate("%s: %d tiers, want %d", s.name, len(snapshot.Tiers), len(all))
		return
	}
	used := s.byTier(snapshot.Eligible)
	for n, t := range snapshot.Tiers {
		if t.Peers != len(all[n]) || t.Eligible != len(used[n]) {
			w.violate("%s: tier %d has %d of %d peers, want %d of %d", s.name, n, t.Eligible, t.Peers, len(used[n]), len(all[n]))
		}
	}
	s.checkSubsets(all, usable, used)
	s.checkShares(room, snapshot.Tiers)
}

// epsilon is what sums of shares may be off.
const epsilon = 1e-9

// room returns for what part of the requests each tier has room: all of them as
// long as what is left of its capacity, so many times over, is enough.
func (s *service) room(all, left [][]*balancer.Peer) []float64 {
	over := s.options.Overprovisioning
	if over == 0 {
		over = balancer.DefaultOverprovisioning
	}
	capacity := func(peers []*balancer.Peer) (n float64) {
		for _, real := range peers {
			n += float64(max(s.peers[real].usual, 1))
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

// checkShares: a tier gets no more than it has room for, and nothing before those
// above it have what they have room for. Where there is not room for all requests,
// each tier gets as many times too much.
func (s *service) checkShares(room []float64, tiers []balancer.Tier) {
	total, given := sum(room), 0.
	full := true // the tiers before
	for n, t := range tiers {
		fair := room[n] / min(1, max(total, epsilon))
		switch {
		case t.Share < 0 || t.Share > fair+epsilon:
			s.w.violate("%s: tier %d gets %.3f, it has room for %.3f of %.3f", s.name, n, t.Share, room[n], total)
		case t.Share > epsilon && !full:
			s.w.violate("%s: tier %d gets %.3f, though those before have room", s.name, n, t.Share)
		}
		given += t.Share
		full = full && t.Share >= fair-epsilon
		if n > 0 && t.Share > epsilon && t.Share < 1-epsilon {
			s.w.counts["tier overflows"]++
		}
	}
	if want := min(1, math.Ceil(total)); math.Abs(given-want) > epsilon {
		s.w.violate("%s: the tiers get %.3f of the requests, want %v", s.name, given, want)
	}
}

// checkTierOfTry: a request goes to a tier that has no share only if the peers of
// all tiers before have had their chance. tries of first attempts are counted, to
// be compared with the shares.
func (s *service) checkTierOfTry(r *request, p *peer) {
	if len(s.tiers) == 0 || s.moved == time.Now() || s.configure == time.Now() {
		return
	}
	snapshot := s.pool.Snapshot()
	n := s.tierOf(p.real)
	if r.tries == 1 && r.query.Hash == 0 && s.options.Limits.PeerRequests == 0 {
		s.w.lots.drawn(snapshot.Tiers[0].Share, n == 0)
	}
	if snapshot.Tiers[n].Share > 0 || r.named() == p.real {
		return
	}
	for _, real := range snapshot.Eligible {
		limit := s.options.Limits.PeerRequests
		full := limit > 0 && (real.Inflight() >= limit || s.freed == time.Now())
		if s.tierOf(real) < n && !r.tried[real] && !full {
			s.w.violate("request %d: on %s of tier %d, though %s of tier %d has not been tried", r.number, p, n, s.peers[real], s.tierOf(real))
		}
	}
	s.w.counts["next tier tried"]++
}

// lots compare how often something happened with how often it should have.
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

// fair reports whether the difference is within six standard deviations: it is
// not once in 500 million times.
func (l *lots) fair() bool { return math.Abs(l.got-l.expected) <= 6*math.Sqrt(l.variance) }

func sum(of []float64) (total float64) {
	for _, x := range of {
		total += x
	}
	return total
}
