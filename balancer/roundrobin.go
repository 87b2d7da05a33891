package balancer

import "sync/atomic"

// roundRobin takes turns, by a schedule that gives each peer its share and
// spreads its turns evenly; see newSchedule. Taking a turn is one addition to
// the pool's cursor, which all requests share.
//
// Only first attempts take turns. If a retry did, the request that comes next
// would find the turn of the peer that the retry had: with two peers, of which one
// is dead, that is the dead one's again, each time. Nor does a retry go to the
// next in turn, which would get the dead peer's share beside its own. It draws
// one of the others.
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
	if q.Tried.Len() == 0 {
		return r.candidates[r.turn(cursor.Add(1))].peer
	}
	for range maxTried {
		if p := r.candidates[r.turn(q.random.uint64())].peer; !q.Tried.Has(p) {
			return p
		}
	}
	// Those tried have most of the turns, or nobody is left.
	if c := untried(r.candidates, q.random.below(len(r.candidates)), &q.Tried); c != nil {
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
