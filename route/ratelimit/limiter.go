// Package ratelimit limits the rate of events by key, with token buckets.
package ratelimit

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	numShards = 16
	// maxKeys is the most keys of a Limiter that have a bucket which is not full. One
	// takes about 40 bytes.
	maxKeys = 1 << 16
	// sampled is how many buckets a new key looks at: to remove the full ones, and
	// if there are too many, the one that is nearest to it.
	sampled = 8
)

// A Limiter has a bucket for each key: it holds up to a number of tokens, and gets new
// ones at a constant rate. A Limiter is safe for concurrent use.
//
// It keeps only the buckets that are not full, and at most maxKeys of them. When there are
// more, a bucket that is nearly full makes room: a client with many keys, which uses each
// of them once, does not free others from their limit. A key that loses its bucket has a
// full one.
type Limiter struct {
	interval time.Duration // between two tokens
	burst    time.Duration // in which an empty bucket is filled
	epoch    time.Time
	seed     maphash.Seed
	shards   [numShards]shard
	shared   *shared // nil: this process keeps the limit by itself
}

// shard is a part of the keys. A bucket is the time after the epoch when it will be full
// (the "theoretical arrival time" of the generic cell rate algorithm).
type shard struct {
	mu      sync.Mutex
	buckets map[uint64]level // by hash of the key; guarded by mu
}

// level is when a bucket will be full.
type level time.Duration

func (l level) fullAt() time.Duration { return time.Duration(l) }

// New returns a Limiter of tokens per duration, whose buckets hold burst tokens. All must
// be above 0.
func New(tokens int, per time.Duration, burst int) *Limiter {
	interval := max(per/time.Duration(tokens), 1)
	return &Limiter{interval: interval, burst: interval * time.Duration(burst), epoch: time.Now(), seed: maphash.MakeSeed()}
}

// Take takes a token of the key, at the time now. If there is none, it returns after which
// time there will be one; it is above 0 then.
func (l *Limiter) Take(key []byte, now time.Time) (wait time.Duration) {
	if l.shared != nil {
		return l.takeShared(key, now.Sub(l.epoch))
	}
	hash := maphash.Bytes(l.seed, key)
	s, at := &l.shards[hash%numShards], now.Sub(l.epoch)
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.buckets[hash]
	full := max(time.Duration(before), at) + l.interval
	if wait := full - at - l.burst; wait > 0 {
		return wait
	}
	if !known {
		s.buckets = makeRoom(s.buckets, at)
	}
	s.buckets[hash] = level(full)
	return 0
}

// makeRoom removes full buckets among some, and the fullest one if there are too many. It returns
// the map, which may be nil before.
func makeRoom[B interface{ fullAt() time.Duration }](buckets map[uint64]B, now time.Duration) map[uint64]B {
	if buckets == nil {
		return make(map[uint64]B)
	}
	looked, fullest, first := 0, uint64(0), time.Duration(0)
	for hash, b := range buckets { // in random order
		full := b.fullAt()
		if looked == 0 || full < first {
			fullest, first = hash, full
		}
		if full <= now {
			delete(buckets, hash)
		}
		if looked++; looked == sampled {
			break
		}
	}
	if len(buckets) >= maxKeys/numShards {
		delete(buckets, fullest)
	}
	return buckets
}
