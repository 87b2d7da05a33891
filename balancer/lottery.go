package balancer

import "math"

// lottery draws one of n numbers in proportion to weights, in constant time: A. J.
// Walker's alias method, set up as by M. D. Vose, "A Linear Algorithm for Generating
// Random Numbers with a Given Distribution" (1991). It is immutable.
type lottery struct {
	n uint64
	// tickets has n entries of equal probability, or none if all weights are equal.
	tickets []ticket
}

type ticket struct {
	own   uint32 // part of the ticket for its own index, of 2³²-1
	other uint32 // index for the rest
}

func newLottery(candidates []candidate) lottery {
	n := len(candidates)
	l := lottery{n: uint64(n)}
	if equalWeights(candidates) {
		return l
	}
	// share is the probability × n.
	share := make([]float64, n)
	total := totalWeight(candidates)
	var small, large []uint32
	for i, c := range candidates {
		share[i] = float64(c.weight) / total * float64(n)
		if share[i] < 1 {
			small = append(small, uint32(i))
		} else {
			large = append(large, uint32(i))
		}
	}
	l.tickets = make([]ticket, n)
	for len(small) > 0 && len(large) > 0 {
		s, g := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		l.tickets[s] = ticket{own: uint32(share[s] * math.MaxUint32), other: g}
		share[g] -= 1 - share[s]
		if share[g] < 1 {
			large = large[:len(large)-1]
			small = append(small, g)
		}
	}
	for _, full := range [][]uint32{small, large} { // but for rounding, all are 1
		for _, i := range full {
			l.tickets[i] = ticket{own: math.MaxUint32, other: i}
		}
	}
	return l
}

// draw returns a number from 0 to n-1.
func (l *lottery) draw(random source) int { return l.winner(l.ticket(random)) }

// ticket returns a random index of tickets, and a coin for winner.
func (l *lottery) ticket(random source) (i int, coin uint32) {
	r := random.uint64()
	return int(r >> 32 * l.n >> 32), uint32(r)
}

// winner returns one of the two numbers of a ticket.
func (l *lottery) winner(i int, coin uint32) int {
	if l.tickets == nil {
		return i
	}
	if t := l.tickets[i]; coin > t.own {
		return int(t.other)
	}
	return i
}

// drawTwo returns two different numbers from 0 to n-1, the first distributed as by
// draw, the second as by draw without the first. n must be at least 2.
func (l *lottery) drawTwo(random source) (first, second int) {
	if l.tickets == nil {
		r := random.uint64()
		i, j := r>>32*l.n>>32, r&math.MaxUint32*(l.n-1)>>32
		if j >= i {
			j++
		}
		return int(i), int(j)
	}
	first = l.draw(random)
	for range 4 {
		if second = l.draw(random); second != first {
			return first, second
		}
	}
	// One has most of the weight: the second may be any other.
	return first, (first + 1 + random.below(int(l.n-1))) % int(l.n)
}
