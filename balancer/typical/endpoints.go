package typical

import (
	"sync/atomic"
	"time"
)

const (
	// Endpoints know the medians of up to endpointSets × endpointWays endpoints, in 2 KiB.
	endpointSets = 64
	endpointWays = 4

	// knownHits is after how many answers the median of an endpoint is used, and maxHits how
	// many answers of others in its set an endpoint withstands.
	knownHits = 8
	maxHits   = 64

	// agingInterval is how often an endpoint loses a hit while others find no place, so that what
	// is asked no more makes place within maxHits times as long.
	agingInterval = 10 * time.Second
)

// Endpoints are running medians of latencies by the number of an endpoint, whichever peer has
// answered: a peer is not slow because it has got requests that take long. What is not known yet is
// compared with all that is not known.
//
// An endpoint takes the place of the one in its set with the fewest hits, after it, or others that
// have no place, have come as often. So requests that come once, as to paths that a client makes
// up, have one place of a set, and an endpoint that is asked more often keeps its own.
//
// It is safe for concurrent use without a lock, and allocates nothing; a latency may be lost.
type Endpoints struct {
	sets [endpointSets][endpointWays]atomic.Uint64
	rest Median
	aged atomic.Int64 // when all endpoints last lost a hit, by nanotime
}

// A place of an endpoint is a word: above the bits of its median are the hits, and the upper
// half of the endpoint's number.
const (
	oneHit   = 1 << medianBits
	hitsMask = 0xff << medianBits
	tagMask  = 0xffff << 48
)

func tagOf(endpoint uint32) uint64 { return uint64(endpoint) << 32 & tagMask }

// Add adds an answer that came at the time end, and returns the median to compare it with.
func (e *Endpoints) Add(endpoint uint32, latency time.Duration, end int64) float32 {
	set, tag := &e.sets[endpoint%endpointSets], tagOf(endpoint)
	var fewest *atomic.Uint64
	least := uint64(hitsMask)
	for i := range uint32(endpointWays) {
		place := &set[(endpoint/endpointSets+i)%endpointWays] // those with as few hits in any order
		word := place.Load()
		hits := word & hitsMask
		if word&tagMask == tag && hits > 0 {
			return e.hit(place, word, latency)
		}
		if hits < least {
			fewest, least = place, hits
		}
	}
	if least > 0 {
		fewest.Add(^uint64(oneHit - 1))
		e.age(end)
	} else {
		fewest.Store(tag | oneHit | uint64(median(0).add(latency)))
	}
	return e.rest.Add(latency)
}

// age takes a hit from every endpoint, if it is time to. The clock is the requests' own, so that
// a client that makes up paths ages nothing faster.
func (e *Endpoints) age(now int64) {
	aged := e.aged.Load()
	if now-aged < int64(agingInterval) || !e.aged.CompareAndSwap(aged, now) {
		return
	}
	for i := range e.sets {
		for j := range e.sets[i] {
			if place := &e.sets[i][j]; place.Load()&hitsMask != 0 {
				place.Add(^uint64(oneHit - 1))
			}
		}
	}
}

// hit adds an answer of the endpoint that has this place.
func (e *Endpoints) hit(place *atomic.Uint64, word uint64, latency time.Duration) float32 {
	next := uint64(median(word).add(latency))
	if word&hitsMask < maxHits*oneHit {
		next += oneHit
	}
	if next != word {
		place.Store(next)
	}
	if next&hitsMask < knownHits*oneHit {
		return e.rest.Add(latency)
	}
	return median(next).nanoseconds()
}

// Median returns the median to compare with; 0: none is known.
func (e *Endpoints) Median(endpoint uint32) float32 {
	set, tag := &e.sets[endpoint%endpointSets], tagOf(endpoint)
	for i := range set {
		if word := set[i].Load(); word&tagMask == tag && word&hitsMask >= knownHits*oneHit {
			return median(word).nanoseconds()
		}
	}
	return median(e.rest.word.Load()).nanoseconds()
}
