package balancer

import "sync/atomic"

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
// As far as a peer's latency is not known, because it is new or had no request
// for long, it is taken to be that of the other. So a new peer is neither
// flooded nor shunned, a peer that never answers gets no more requests than
// others have in flight, and one that was slow is tried again from time to
// time.
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

// compare returns the latencies of two peers, of which only the relation
// matters.
func compare(p, q *Peer, now int64) (a, b float64) {
	pv, pTrust := p.latency.at(now)
	qv, qTrust := q.latency.at(now)
	if pv == 0 || qv == 0 {
		return 1, 1
	}
	a = qv + (pv-qv)*pTrust
	b = pv + (qv-pv)*qTrust
	return min(a, b*maxSlower), min(b, a*maxSlower)
}
