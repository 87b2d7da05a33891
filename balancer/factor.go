package balancer

import (
	"cmp"
	"math"
	"time"
)

// Factor identifies a factor by which the share of a peer differs from its weight. Each has one owner, who sets it by
// [Pool.SetFactors]; slow start is one more.
type Factor uint8

const (
	// FactorHealth is below 1 for a peer that does worse than the others.
	FactorHealth Factor = iota
	// FactorLoad follows the load that peers report.
	FactorLoad

	// NumFactors is the number of factors; they count from 0.
	NumFactors = int(FactorLoad) + 1
)

// The bounds of one factor.
const (
	minFactor = 0.01
	maxFactor = 100
)

// Adjustment sets a factor of one peer; see [Pool.SetFactors].
type Adjustment struct {
	Peer *Peer
	By   float64 // from 0.01 to 100, or the nearest of the two; 1 is none
	Why  string  // a short cause for people; may be empty
}

// adjustment is one of the factors of a condition. The zero value is none.
type adjustment struct {
	by  float64 // 0 is 1
	why string
}

func (a adjustment) factor() float64 {
	return cmp.Or(a.by, 1)
}

// SetFactors sets a factor of some peers, which the caller owns, with one new snapshot. It ignores peers that have
// drained, and factors that are not a number. A factor lasts until it is set again, also if its peer leaves and returns
// before it has drained.
func (p *Pool) SetFactors(f Factor, adjustments ...Adjustment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setFactorsLocked(f, adjustments)
}

func (p *Pool) setFactorsLocked(f Factor, adjustments []Adjustment) {
	differs := false
	for _, a := range adjustments {
		if p.peers[a.Peer.ID] != a.Peer && p.draining[a.Peer.ID] != a.Peer || math.IsNaN(a.By) {
			continue
		}
		next := adjustment{min(max(a.By, minFactor), maxFactor), a.Why}
		was, is := p.changeLocked(a.Peer, func(c *condition) { c.factors[f] = next })
		p.noteStateLocked(a.Peer, was, is)
		differs = differs || was.factors[f].factor() != is.factors[f].factor()
	}
	if differs {
		p.publishLocked()
	}
}

// Factor returns a factor of the peer, 1 if none is set, and why.
func (p *Peer) Factor(f Factor) (by float64, why string) {
	a := p.condition.Load().factors[f]
	return a.factor(), a.why
}

// factorScale multiplies all weights while a factor is in use, so that fractions of the smallest weight are integers.
const factorScale = 1000

// weigh multiplies the weights of candidates by their factors and slow start.
func weigh(candidates []candidate, s *SlowStart, now time.Time) {
	equal := true
	for i := range candidates {
		c := &candidates[i]
		condition := c.peer.condition.Load()
		c.factor = 1
		if !condition.warmFrom.IsZero() {
			c.factor = s.factor(now.Sub(condition.warmFrom))
		}
		for _, a := range condition.factors {
			c.factor *= a.factor()
		}
		equal = equal && c.factor == 1
	}
	if equal {
		return
	}
	for i := range candidates {
		c := &candidates[i]
		c.weight = max(1, int(math.Round(float64(c.weight*factorScale)*c.factor)))
	}
}
