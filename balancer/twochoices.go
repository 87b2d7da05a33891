package balancer

// twoChoices draws two candidates at random, of which a policy takes the
// better. That is nearly as good as comparing all: with n servers the longest
// queue grows with log log n, against log n / log log n for one random choice
// (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
// IEEE TPDS 12(10), 2001). And many balancers with the same idea of who is best
// do not all run there at once.
//
// Candidates are drawn in proportion to their weights, and the second is taken
// only if with this request it is not worse than the first is without it. With
// equal weights that is the usual comparison. With others it makes shares
// follow the weights while there is little load, when a peer of low weight is
// idle most of the time and that says nothing, and loads follow them when
// there is much.
type twoChoices struct {
	candidates []candidate
	lottery    lottery
}

func newTwoChoices(candidates []candidate) twoChoices {
	return twoChoices{candidates: candidates, lottery: newLottery(candidates)}
}

// draw returns two candidates that are not in q.Tried: the same one twice if
// there is one only, nil twice if there is none.
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
	// Few are left: one of the two, or any that can be found.
	if tried.Has(first.peer) {
		first = second
	}
	if tried.Has(first.peer) {
		first = untried(t.candidates, t.lottery.draw(q.random), tried)
	}
	return first, first
}
