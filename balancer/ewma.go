package balancer

import (
	"math"
	"slices"
	"sync/atomic"
)

const (
	// choices is how many random peers are compared.
	choices = 6
	// concurrency is the load of a peer without requests in flight. A peer works at some requests
	// at the same time, so that the first ones delay each other little: with 1, an idle slow peer
	// is preferred to a fast one that has room. With more, slow requests, which only the number in
	// flight shows, collect at one peer.
	concurrency = 2.5
	// maxFaster and maxSlower bound the ratio between the latency of a peer and the usual one. No
	// peer counts as much faster than the others, so that errors of estimates draw no crowd. A slow
	// one gets requests when the others have this many times the load, so that one slow answer does
	// not idle it.
	maxFaster = 0.6
	maxSlower = 32
	// A peer that alone answers implausible times as fast as the next one of all choices does other
	// work than they do, for example answers wrongly. Of fewer peers, two slow ones would make the
	// third implausible.
	implausible = 16
)

// ewma takes the best of six random peers, drawn by weight, by latency × load. Latency is a moving
// average (see estimate), load is concurrency plus the requests in flight relative to the weight.
//
// A request of a light peer is a larger load than one of a heavy peer. If a pick counted only those
// in flight, idle light peers would get too much; with the one to pick for, too little. So it
// counts half of this one: (requests + ½) / weight is how A. Sainte-Laguë divides seats without
// favour for small or large parties.
//
// The usual latency is the median of those. A peer that has answered once or never has it. A slower
// one approaches it as its last sample ages: within seconds after a single slow answer, within half
// a minute if it was slow for long. So new peers are not flooded, and slow ones are tried again
// with one request at a time.
//
// A peer that answers wrongly and at once has a low latency and nothing in flight, and would get
// most of the requests. So a single one that is implausibly fast gets what its weight gives: it
// counts as usual when it is drawn first, and else not at all. If several are as fast, the others
// are slow.
type ewma struct {
	candidates []candidate
	lottery    lottery
}

func newEWMA(l *pickerInput) picker {
	return &ewma{l.candidates, newLottery(l.candidates)}
}

func (e *ewma) pick(q Query, now int64, _ *atomic.Uint64) *Peer {
	var drawn [choices]drawing
	n := e.draw(&q, &drawn)
	if n == 0 {
		return nil
	}
	usual, alone := judge(drawn[:n])
	if alone == 0 {
		drawn[0].estimate = usual
	} else if alone > 0 {
		n--
		drawn[alone] = drawn[n]
	}
	best, lowest := drawn[0].peer, drawn[0].latency(usual, now)
	idle := drawn[0].load() == 0
	if idle {
		lowest *= concurrency
	} else {
		lowest *= drawn[0].halfway()
	}
	for i := range drawn[1:n] {
		d := &drawn[i+1]
		load := d.halfway()
		if idle {
			// The first stays the choice unless another one is better even with twice the load: at
			// low load shares follow the weights, and all are tried. With half a request by weight,
			// shares would follow twice.
			load = 2*concurrency + d.load()
		}
		if usual*maxFaster*load >= lowest {
			continue // whatever its latency is
		}
		if score := d.latency(usual, now) * load; score < lowest {
			best, lowest = d.peer, score
		}
	}
	return best
}

// drawing is a candidate with its estimate.
type drawing struct {
	*candidate
	estimate float64
}

// halfway returns the load with half of a further request; for an average weight, concurrency plus
// the requests in flight.
func (d *drawing) halfway() float64 { return concurrency + (d.burden-1)/2 + d.load() }

// draw draws candidates that are not in q.Tried, in proportion to their weights: different ones if
// all weights are equal. Of a small pool it takes all.
func (e *ewma) draw(q *Query, drawn *[choices]drawing) (n int) {
	size := len(e.candidates)
	at, coin := e.lottery.ticket(q.random)
	first := e.lottery.winner(at, coin)
	var bits, coins uint64
	if size > choices {
		bits = q.random.uint64()
		if e.lottery.tickets != nil {
			coins = q.random.uint64()
		}
	}
	for k := range min(choices, size) {
		i := first
		switch {
		case k == 0:
		case size > choices: // a ticket of each sixth, so that all are different
			from, to := k*size/choices, (k+1)*size/choices
			if i = at + from + int(bits&0xfff)*(to-from)>>12; i >= size {
				i -= size
			}
			i = e.lottery.winner(i, uint32(coins&0xfff)<<20)
			bits, coins = bits>>12, coins>>12
		default:
			if i += k; i >= size {
				i -= size
			}
		}
		c := &e.candidates[i]
		if q.Tried.Len() > 0 && q.Tried.Has(c.peer) {
			continue
		}
		drawn[n] = drawing{c, math.Float64frombits(c.peer.latency.value.Load())}
		n++
	}
	if n == 0 { // few are left
		if c := untried(e.candidates, first, &q.Tried); c != nil {
			drawn[0] = drawing{c, math.Float64frombits(c.peer.latency.value.Load())}
			n = 1
		}
	}
	return n
}

// judge returns the median of the known estimates, the lower one of two, and 0 if there is none. It
// also returns the index of a single one that is implausibly fast, or -1.
func judge(drawn []drawing) (usual float64, alone int) {
	var sorted [choices]float64
	n := 0
	for i := range drawn {
		v := drawn[i].estimate
		if v == 0 {
			continue
		}
		at := n
		for ; at > 0 && sorted[at-1] > v; at-- {
			sorted[at] = sorted[at-1]
		}
		sorted[at] = v
		n++
	}
	usual = sorted[max(n-1, 0)/2]
	if n < choices || sorted[0]*implausible >= sorted[1] {
		return usual, -1
	}
	return usual, slices.IndexFunc(drawn, func(d drawing) bool { return d.estimate == sorted[0] })
}

// latency returns the latency that a pick compares; only ratios have a meaning.
func (d *drawing) latency(usual float64, now int64) float64 {
	if d.estimate == 0 {
		return max(usual, 1)
	}
	e := &d.peer.latency
	return max(e.faded(d.estimate, usual, now-e.stamp.Load()), usual*maxFaster)
}

// fresh is the age below which a sample is not discounted.
const fresh = minDecay / 64
