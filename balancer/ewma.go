package balancer

import (
	"math"
	"sync/atomic"
)

// maxSlower bounds how many times slower than another a peer is taken to be. A
// slow peer gets next to nothing in any case, but when the others have this
// many requests in flight each, it helps out: one slow answer must not idle a
// peer for long.
const maxSlower = 32

// ewma takes the one of two random peers where a request should be over
// sooner: the one with the lower product of latency and load, where latency is
// a peak-sensitive moving average (see estimate) and load is 1 plus the number
// of requests in flight in relation to the weight.
//
// A new peer is taken to be as fast as the other, and so is a slower one the more
// the longer its last answer is ago: within 3.5 s after a single slow one, within
// 35 s if it has been slow for long. So a new peer is neither flooded nor shunned, a
// peer that never answers gets no more requests than others have in flight, and
// one that was slow is tried again, one request at a time while others are idle.
type ewma struct {
	twoChoices
}

func newEWMA(l *lineup) picker {
	return &ewma{newTwoChoices(l.candidates)}
}

func (e *ewma) pick(q Query, now int64, _ *atomic.Uint64) *Peer {
	first, second := e.draw(&q)
	if first == second {
		if first == nil {
			return nil
		}
		return first.peer
	}
	a, b := compare(first.peer, second.peer, now)
	if b*(1+second.load()+second.burden) <= a*(1+first.load()) {
		return second.peer
	}
	return first.peer
}

// fresh is the age below which a latency is as good as new.
const fresh = lone / 64

// fasterAge is how much less the age of the faster peer's latency counts: that it
// has had no request for a while is no reason to send one to the slower.
const fasterAge = 1. / 8

// compare returns the latencies of two peers, of which only the relation
// matters.
func compare(p, q *Peer, now int64) (a, b float64) {
	a, aAge := p.latency.at(now)
	b, bAge := q.latency.at(now)
	if a == 0 || b == 0 {
		return 1, 1
	}
	a, b = min(a, b*maxSlower), min(b, a*maxSlower)
	switch {
	case max(aAge, bAge) < int64(fresh):
		return a, b
	case a > b:
		return b + (a-b)*trust(&p.latency, aAge, &q.latency, bAge), b
	default:
		return a, a + (b-a)*trust(&q.latency, bAge, &p.latency, aAge)
	}
}

// trust returns how far it can be trusted that one peer is slower than another,
// by estimates of these ages: from 1 for fresh ones down to 0.
func trust(slower *estimate, age int64, faster *estimate, fastersAge int64) float64 {
	return math.Exp(-(float64(max(age, 0))/slower.fade() + float64(max(fastersAge, 0))/faster.fade()*fasterAge))
}
