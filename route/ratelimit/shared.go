package ratelimit

import (
	"math"
	"sync"
	"time"
)

// shared is a limit that the replicas of a fleet keep together. A replica has two buckets for each
// key: one for its share of the limit, which decides, and its copy of the fleet's, from which it
// takes in each round what the others have taken. Then the bucket of its share gets the level of
// the fleet's.
type shared struct {
	fleet  *Fleet
	decay  float64 // of bucket.asked in a round
	part   float64 // for which bucket.all is; only Apply uses it
	shards [numShards]sharedShard
}

type sharedShard struct {
	mu      sync.Mutex
	seed    Seed              // of the hashes; guarded by mu
	buckets map[uint64]bucket // guarded by mu
	round   uint32            // guarded by mu
}

// bucket is what a replica knows of a key. Times are after the epoch.
type bucket struct {
	own   time.Duration // when the bucket of its share will be full
	all   time.Duration // likewise the fleet's; in the past, it could have had more tokens
	rest  time.Duration // likewise the bucket of the replicas that are not seen, as far as it is known
	last  time.Duration // when it gave a token
	cost  float32       // of a token in own, in intervals: 1 / share; 0: the key is not exchanged
	asked float32       // tokens that were asked for lately, also those that there were not
	taken uint32        // tokens since the last round
	round uint32        // after which cost was set
}

// fullAt returns when b may be forgotten. One whose key is exchanged has more than its level to
// remember.
func (b bucket) fullAt() time.Duration {
	full := max(b.own, b.all, b.rest)
	if b.cost != 0 {
		full += longest
	}
	return full
}

const (
	// remembered is how many tokens of the limit are asked for, about, while bucket.asked
	// remembers: the counts of one round of a slow limit would be 0 or 1.
	remembered = 10
	longest    = time.Hour // that it remembers

	// slack is how far, in time, a bucket of the fleet may be beyond full or empty. Without, a
	// replica would forget what it does not know yet: what the others take arrives a round later.
	slack = Round
	// gain is how much a share changes if the bucket of the fleet is beyond by slack.
	gain = 0.5

	forgotten = 0.01 // tokens: bucket.asked is 0 then
)

// NewShared returns a Limiter, as New, that keeps the limit together with the other replicas of the
// fleet.
func NewShared(tokens int, per time.Duration, burst int, fleet *Fleet) *Limiter {
	l := New(tokens, per, burst)
	memory := min(remembered*l.interval, longest)
	standing := fleet.Standing()
	l.shared = &shared{fleet: fleet, part: standing.Part(), decay: math.Exp(-float64(Round) / float64(memory))}
	return l
}

// takeShared is Take.
func (l *Limiter) takeShared(key []byte, at time.Duration) (wait time.Duration) {
	fleet := l.shared.fleet.standing.Load()
	hash := fleet.Seed.hash(key)
	s := &l.shared.shards[hash%numShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.use(&fleet.Seed)
	b, known := s.buckets[hash]
	if !known {
		s.buckets = makeRoom(s.buckets, at)
		b.all = at
	}
	cost := l.interval * time.Duration(fleet.Replicas)
	if b.cost != 0 {
		cost = time.Duration(float64(l.interval) * float64(b.cost))
	}
	b.asked++
	own := max(b.own, at) + cost
	if wait = own - at - l.room(cost); wait <= 0 {
		b.own, b.all, b.last = own, b.all+l.interval*time.Duration(fleet.Replicas)/time.Duration(fleet.Seen), at
		b.taken++
	}
	s.buckets[hash] = b
	return max(wait, 0)
}

// room returns in which time the bucket of a share becomes full, for what a token costs. It has one
// token at least, and half of a token more than the share of the burst: what all shares lose
// because a part of a token is none.
func (l *Limiter) room(cost time.Duration) time.Duration {
	return max(l.burst+(cost-l.interval)/2, cost)
}

// use forgets buckets with hashes of another seed.
func (s *sharedShard) use(seed *Seed) {
	if s.seed != *seed {
		s.seed, s.buckets = *seed, nil
	}
}

// perRound returns what bucket.asked is for a key that is asked for at the rate of this part of the
// limit.
func (l *Limiter) perRound(fleet *Standing) float64 {
	return fleet.Part() * float64(Round) / float64(l.interval) / (1 - l.shared.decay)
}

// Share returns which share of the limit this replica has of a key.
func (l *Limiter) Share(hash uint64) float64 {
	s := &l.shared.shards[hash%numShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if cost := s.buckets[hash].cost; cost != 0 {
		return 1 / float64(cost)
	}
	return 1 / float64(l.shared.fleet.standing.Load().Replicas)
}
