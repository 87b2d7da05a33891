package balancer

import "sync/atomic"

// roundRobin takes turns, by a schedule that gives each peer its share and
// spreads its turns evenly; see newSchedule. Taking a turn is one addition to
// the pool's cursor, which all requests share.
type roundRobin struct {
	candidates []candidate
	schedule   []uint32 // indices of candidates; nil if all have the same weight
}

func newRoundRobin(l *lineup) picker {
	r := &roundRobin{candidates: l.candidates}
	if !equalWeights(l.candidates) {
		r.schedule = newSchedule(turns(l.candidates))
	}
	return r
}

func (r *roundRobin) pick(q Query, _ int64, cursor *atomic.Uint64) *Peer {
	for range q.Tried.Len() + 1 {
		if p := r.candidates[r.turn(cursor.Add(1))].peer; !q.Tried.Has(p) {
			return p
		}
	}
	// Those tried have turns in a row, or nobody is left.
	if c := untried(r.candidates, r.turn(cursor.Add(1)), &q.Tried); c != nil {
		return c.peer
	}
	return nil
}

// turn returns whose turn n is.
func (r *roundRobin) turn(n uint64) int {
	if r.schedule == nil {
		return int(n % uint64(len(r.candidates)))
	}
	return int(r.schedule[n%uint64(len(r.schedule))])
}
