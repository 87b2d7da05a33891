package balancer

import "sync/atomic"

// fullScan is the largest pool in which all peers are compared: that many
// cache lines are read for one pick.
const fullScan = 8

// leastConn takes the peer with the fewest requests in flight in relation to
// its weight, in a large pool the better of two random ones; see twoChoices
// for how weights count. Ties are decided by lot.
type leastConn struct {
	twoChoices
}

func newLeastConn(l *lineup) picker {
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

// least returns the candidate, other than first unless there is no other,
// that would be loaded least with one request more.
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
		case load == lowest: // reservoir sampling: each of those tied is left with the same chance
			if tied++; q.random.below(tied) == 0 {
				best = c
			}
		}
	}
	return best
}
