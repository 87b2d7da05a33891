package ratelimit

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Count is what a replica tells the others about a key.
type Count struct {
	Hash  uint64
	Taken uint32  // tokens in the round, or in the rounds since another replica asked
	Asked float32 // tokens that were asked for lately, also those that there were not
	Debt  float32 // tokens that the fleet's bucket lacks, as far as it knows; below 0, what it could have had beyond the burst
}

// Report is what another replica has told about a limit.
type Report struct {
	Counts []Count       // at most one for each hash
	Age    time.Duration // of them
	Fresh  bool          // they were not applied before
}

// Sum returns the counts of the last of some rounds, with the tokens taken in all of them: rounds
// that are not told are limits that are not kept, and those that ask do so a bit earlier or later
// than in each round.
func Sum(rounds [][]Count) []Count {
	last := len(rounds) - 1
	if last < 1 {
		return rounds[last]
	}
	sum, at := slices.Clone(rounds[last]), make(map[uint64]int)
	for i, c := range sum {
		at[c.Hash] = i
	}
	for _, round := range rounds[:last] {
		for _, c := range round {
			i, ok := at[c.Hash]
			if !ok {
				i = len(sum)
				at[c.Hash] = i
				sum = append(sum, Count{Hash: c.Hash, Debt: -math.MaxFloat32}) // nothing else is known of it
			}
			sum[i].Taken += c.Taken
		}
	}
	return sum
}

// Collect ends a round of a shared Limiter: it returns the counts of the keys that were asked for
// most, at most n. A key is left out if no other replica has it and it needs less than the least
// share.
func (l *Limiter) Collect(now time.Time, n int) (counts []Count) {
	fleet, at := l.shared.fleet.Standing(), now.Sub(l.epoch)
	few := float32(l.perRound(&fleet) / float64(2*fleet.Seen))
	for i := range l.shared.shards {
		counts = l.shared.shards[i].collect(counts, at, float64(l.interval)/fleet.Part(), few, float32(l.shared.decay))
	}
	slices.SortFunc(counts, func(a, b Count) int { return cmp.Or(cmp.Compare(b.Asked, a.Asked), cmp.Compare(a.Hash, b.Hash)) })
	return counts[:min(n, len(counts))]
}

func (s *sharedShard) collect(counts []Count, at time.Duration, interval float64, few, decay float32) []Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hash, b := range s.buckets {
		if b.round != s.round {
			b.cost = 0
		}
		if b.cost == 0 {
			b.all = max(b.all, at)
		}
		if b.asked >= few || b.cost != 0 && b.asked > 0 {
			counts = append(counts, Count{hash, b.taken, b.asked, float32(float64(b.all-at) / interval)})
		}
		b.taken = 0
		if b.asked *= decay; b.asked < forgotten {
			b.asked = 0
		}
		if s.buckets[hash] = b; b.asked == 0 && b.cost == 0 && b.fullAt() <= at {
			delete(s.buckets, hash)
		}
	}
	s.round++
	return counts
}

// tally has what all replicas count of a key.
type tally struct {
	own, asked float64 // by this replica, by all
	hot, cold  float64 // asked by those that ask for more than the least share, and by the others
	taken      float64 // by others
	debt       float64 // the largest that another one knows
}

// Apply corrects the shares of the keys of a shared Limiter, after the standing of its fleet: own
// is the result of Collect, and others are the reports of the replicas that are seen.
func (l *Limiter) Apply(now time.Time, own []Count, others []Report) {
	fleet, at := l.shared.fleet.Standing(), now.Sub(l.epoch)
	l.resize(fleet.Part(), at)
	keys := make(map[uint64]*tally, len(own))
	of := func(hash uint64) *tally {
		t := keys[hash]
		if t == nil {
			t = &tally{debt: math.Inf(-1)}
			keys[hash] = t
		}
		return t
	}
	for _, c := range own {
		t := of(c.Hash)
		t.own, t.asked = float64(c.Asked), float64(c.Asked)
	}
	interval := float64(l.interval) / fleet.Part()
	for _, r := range others {
		for _, c := range r.Counts {
			t := of(c.Hash)
			t.asked += float64(c.Asked)
			if r.Fresh {
				t.taken += float64(c.Taken)
			}
			t.debt = max(t.debt, float64(c.Debt)-float64(r.Age)/interval)
		}
	}
	floor, whole := fleet.floor(), l.perRound(&fleet)
	for _, r := range append(others[:len(others):len(others)], Report{Counts: own}) {
		for _, c := range r.Counts {
			t := keys[c.Hash]
			if asked := float64(c.Asked); asked < floor*t.asked {
				t.cold += min(asked, floor*whole)
			} else {
				t.hot += asked
			}
		}
	}
	for hash, t := range keys {
		share := floor
		if t.own > 0 && t.own >= floor*t.asked { // it shares with its like what the others do not need
			share = max(floor, (1-t.cold/whole)*t.own/t.hot)
		}
		l.correct(hash, t, share, &fleet, at)
	}
}

// resize makes the fleet's buckets those of another part of the limit.
func (l *Limiter) resize(part float64, at time.Duration) {
	before := l.shared.part
	if l.shared.part = part; part == before {
		return
	}
	for i := range l.shared.shards {
		l.shared.shards[i].resize(before, part, at)
	}
}

func (s *sharedShard) resize(before, part float64, at time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hash, b := range s.buckets {
		b.resize(before, part, at)
		s.buckets[hash] = b
	}
}

// resize divides what was taken between this part and the rest if the part becomes smaller, and
// adds that of the rest if it becomes larger. So what is taken stays taken, however often replicas
// lose sight of each other.
func (b *bucket) resize(before, part float64, at time.Duration) {
	all, rest := float64(b.all-at), float64(max(b.rest-at, 0))
	switch {
	case part < before:
		b.rest = at + time.Duration(((before-part)*max(all, 0)+(1-before)*rest)/(1-part))
	case all > 0 || rest > 0:
		b.all = at + time.Duration((before*max(all, 0)+(part-before)*rest)/part)
	}
}

// correct gives a key this share of the part of the fleet that is seen.
func (l *Limiter) correct(hash uint64, t *tally, share float64, fleet *Standing, at time.Duration) {
	s := &l.shared.shards[hash%numShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.use(&fleet.Seed)
	b, known := s.buckets[hash]
	if !known {
		s.buckets = makeRoom(s.buckets, at)
		b.all = at
	}
	interval := float64(l.interval) / fleet.Part() // of the part
	room := l.room(time.Duration(interval / share))
	tokens := max(float64(b.all-at)/interval+t.taken, t.debt)
	debt := time.Duration(max(-float64(slack), min(tokens*interval, float64(room+slack))))
	b.all = at + debt
	// What the fleet has too many or too few of, beyond its bucket, comes with the next tokens.
	share *= 1 - gain*float64(min(debt, 0)+max(debt-room, 0))/float64(slack)
	cost := time.Duration(interval / share)
	level := max(0, min(debt, room))
	if at-b.last >= 2*l.interval*time.Duration(fleet.Replicas) { // the least share of a slow limit: others leave no whole token
		level = min(level, l.room(cost)-cost)
	}
	b.own, b.cost, b.round = at+level, float32(float64(cost)/float64(l.interval)), s.round
	s.buckets[hash] = b
}
