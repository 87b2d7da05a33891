package balancer

import "sync/atomic"

// fullScan is the largest pool in which a pick compares all peers: it reads a cache
// line of each.
const fullScan = 8

// leastConn takes the peer with the fewest requests in flight relative to its weight;
// in a large pool the better of two random ones (see twoChoices). Ties are broken at
// random.
type leastConn struct {
	twoChoices
}

func newLeastConn(l *pickerInput) picker {
	return &leastConn{newTwoChoices(l.candidates)}
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
