package balancer

import "sync/atomic"

// random draws each peer with a probability proportional to its weight.
type random struct {
	candidates []candidate
	lottery    lottery
}

func newRandom(l *pickerInput) picker {
	return &random{candidates: l.candidates, lottery: newLottery(l.candidates)}
}

func (r *random) pick(q Query, _ int64, _ *atomic.Uint64) *Peer {
	i := r.lottery.draw(q.random)
	for range maxTried {
		if p := r.candidates[i].peer; !q.Tried.Has(p) {
			return p
		}
		i = r.lottery.draw(q.random)
	}
	if c := untried(r.candidates, i, &q.Tried); c != nil {
		return c.peer
	}
	return nil
}
