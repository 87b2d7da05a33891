package balancer

import "sync/atomic"

// roundRobin takes turns.
type roundRobin struct {
	turns []*Peer
}

func newRoundRobin(candidates []candidate) picker {
	r := &roundRobin{}
	for _, c := range candidates {
		r.turns = append(r.turns, c.peer)
	}
	return r
}

func (r *roundRobin) pick(q Query, _ int64, cursor *atomic.Uint64) *Peer {
	for range r.turns {
		if p := r.turns[cursor.Add(1)%uint64(len(r.turns))]; !q.Tried.Has(p) {
			return p
		}
	}
	return nil
}
