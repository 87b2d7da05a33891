package balancer

import "sync/atomic"

// fullScan is the largest pool in which a pick compares all peers: it reads a cache
// line of each.
const fullScan = 8

// leastConn takes the peer with the fewest requests in flight relative to its weight;
// in a large pool the better of two random ones. That is nearly as good as comparing all
// (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS
// 12(10), 2001), and replicas do not all choose the same peer. Ties are broken at random.
//
// Candidates are drawn in proportion to their weights. The second is taken only if with
// this request it is not worse than the first without it: at low load shares follow the
// weights, at high load the loads do.
type leastConn struct {
	candidates []candidate
	lottery    lottery
}

func newLeastConn(l *pickerInput) picker {
	return &leastConn{candidates: l.candidates, lottery: newLottery(l.candidates)}
}

func (l *leastConn) pick(q Query, _ int64, _ *atomic.Uint64) *Peer {
	first, second := l.draw(&q)
	if first == nil {
		return nil
	}
	if len(l.candidates) <= fullScan {
		second = l.least(first, &q)
	}
	if second.load()+second.burden <= first.load() {
		return second.peer
	}
	return first.peer
}

// draw returns two candidates that are not in q.Tried: one twice if there is only one,
// nil twice if there is none.
func (l *leastConn) draw(q *Query) (first, second *candidate) {
	tried := &q.Tried
	if len(l.candidates) == 1 {
		first = &l.candidates[0]
		if tried.Has(first.peer) {
			return nil, nil
		}
		return first, first
	}
	for range maxTried {
		i, j := l.lottery.drawTwo(q.random)
		first, second = &l.candidates[i], &l.candidates[j]
		if tried.Len() == 0 || !tried.Has(first.peer) && !tried.Has(second.peer) {
			return first, second
		}
	}
	// Few are left: one of the two, or any other.
	if tried.Has(first.peer) {
		first = second
	}
	if tried.Has(first.peer) {
		first = untried(l.candidates, l.lottery.draw(q.random), tried)
	}
	return first, first
}

// least returns the candidate other than first with the lowest load after one more
// request; first if there is no other.
func (l *leastConn) least(first *candidate, q *Query) *candidate {
	best, lowest, tied := first, 0.0, 0
	for i := range l.candidates {
		c := &l.candidates[i]
		if c == first || q.Tried.Has(c.peer) {
			continue
		}
		load := c.load() + c.burden
		switch {
		case tied == 0 || load < lowest:
			best, lowest, tied = c, load, 1
		case load == lowest: // reservoir sampling
			if tied++; q.random.below(tied) == 0 {
				best = c
			}
		}
	}
	return best
}
