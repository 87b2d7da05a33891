package balancer

import (
	"math"
	"sync/atomic"
)

// maxSlower bounds the ratio between the latencies of two peers. A slow peer gets
// requests when the others have this many in flight each, so that one slow answer does
// not idle it.
const maxSlower = 32

// ewma compares two random peers by latency × load and takes the lower. Latency is a
// peak-sensitive moving average (see estimate), load is 1 plus the requests in flight
// relative to the weight.
//
// A peer without samples counts as fast as the other. A slower peer approaches the
// faster one as its last sample ages: within 3.5 s after a single slow answer, within
// 35 s if it was slow for long. So new peers are not flooded, and slow ones are tried
// again with one request at a time.
type ewma struct {
	twoChoices
}

func newEWMA(l *pickerInput) picker {
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

// fresh is the age below which a sample is not discounted.
const fresh = minDecay / 64

// fasterAge discounts the age of the faster peer's sample: a fast peer without recent
// requests stays preferred.
const fasterAge = 1. / 8

// compare returns the latencies of two peers; only their ratio has a meaning.
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

// trust returns the weight of the difference between two estimates of these ages: 1 for
// fresh ones, towards 0 with age.
func trust(slower *estimate, age int64, faster *estimate, fastersAge int64) float64 {
	return math.Exp(-(float64(max(age, 0))/slower.decay() + float64(max(fastersAge, 0))/faster.decay()*fasterAge))
}
