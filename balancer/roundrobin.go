package balancer

import "sync/atomic"

// roundRobin uses the peers in turn, by a schedule that spreads each peer's turns
// evenly (see newSchedule). A turn is one addition to the pool's cursor.
//
// Retries take no turn, but draw one of the other peers. If they took turns, then with
// two peers of which one is dead, each first attempt would meet the dead one.
type roundRobin struct {
	candidates []candidate
	schedule   []uint32 // indices of candidates; nil if all have the same weight
}

func newRoundRobin(l *pickerInput) picker {
	r := &roundRobin{candidates: l.candidates}
	if !equalWeights(l.candidates) {
		r.schedule = newSchedule(turns(l.candidates))
	}
	return r
}

func (r *roundRobin) pick(q Query, _ int64, cursor *atomic.Uint64) *Peer {
	if q.Tried.Len() == 0 {
		return r.candidates[r.turn(cursor.Add(1))].peer
	}
	for range maxTried {
		if p := r.candidates[r.turn(q.random.uint64())].peer; !q.Tried.Has(p) {
			return p
		}
	}
	// The tried peers have most of the turns, or no other is left.
	if c := untried(r.candidates, q.random.below(len(r.candidates)), &q.Tried); c != nil {
		return c.peer
	}
	return nil
}

// turn returns the index of the candidate of turn n.
func (r *roundRobin) turn(n uint64) int {
	if r.schedule == nil {
		return int(n % uint64(len(r.candidates)))
	}
	return int(r.schedule[n%uint64(len(r.schedule))])
}
