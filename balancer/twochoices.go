package balancer

// twoChoices draws two random candidates, of which a policy takes the better. That is
// nearly as good as comparing all (M. Mitzenmacher, "The Power of Two Choices in
// Randomized Load Balancing", IEEE TPDS 12(10), 2001), and replicas do not all choose
// the same peer.
//
// Candidates are drawn in proportion to their weights. The second is taken only if with
// this request it is not worse than the first without it: at low load shares follow the
// weights, at high load the loads do.
type twoChoices struct {
	candidates []candidate
	lottery    lottery
}

func newTwoChoices(candidates []candidate) twoChoices {
	return twoChoices{candidates: candidates, lottery: newLottery(candidates)}
}

// draw returns two candidates that are not in q.Tried: one twice if there is only one,
// nil twice if there is none.
func (t *twoChoices) draw(q *Query) (first, second *candidate) {
	tried := &q.Tried
	if len(t.candidates) == 1 {
		first = &t.candidates[0]
		if tried.Has(first.peer) {
			return nil, nil
		}
		return first, first
	}
	for range maxTried {
		i, j := t.lottery.drawTwo(q.random)
		first, second = &t.candidates[i], &t.candidates[j]
		if tried.Len() == 0 || !tried.Has(first.peer) && !tried.Has(second.peer) {
			return first, second
		}
	}
	// Few are left: one of the two, or any other.
	if tried.Has(first.peer) {
		first = second
	}
	if tried.Has(first.peer) {
		first = untried(t.candidates, t.lottery.draw(q.random), tried)
	}
	return first, first
}
