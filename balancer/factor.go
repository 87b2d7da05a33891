package balancer

import (
	"cmp"
	"math"
	"time"
)

// The bounds of the factor by which the share of a peer differs from its weight.
const (
	minFactor = 0.01
	maxFactor = 100
)

// Adjustment sets the factor of one peer; see [Pool.SetFactors].
type Adjustment struct {
	Peer *Peer
	By   float64 // from 0.01 to 100, or the nearest of the two; 1 is none
	Why  string  // a short cause for people; may be empty
}

// adjustment is the factor of a condition. The zero value is none.
type adjustment struct {
	by  float64 // 0 is 1
	why string
}

func (a adjustment) value() float64 { return cmp.Or(a.by, 1) }

// SetFactors sets the factor of some peers, below 1 for one that does worse than the others, with
// one new snapshot. It ignores peers that have drained, and factors that are not a number. A factor
// lasts until it is set again, also if its peer leaves and returns before it has drained. Slow
// start is one more.
func (p *Pool) SetFactors(adjustments ...Adjustment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	differs := false
	for _, a := range adjustments {
		if p.peers[a.Peer.ID] != a.Peer && p.draining[a.Peer.ID] != a.Peer || math.IsNaN(a.By) {
			continue
		}
		next := adjustment{min(max(a.By, minFactor), maxFactor), a.Why}
		was, is := p.changeLocked(a.Peer, func(c *condition) { c.factor = next })
		p.notices.queueState(a.Peer, was, is)
		differs = differs || was.factor.value() != is.factor.value()
	}
	if differs {
		p.publishLocked()
	}
}

// Factor returns the factor of the peer, 1 if none is set, and why.
func (p *Peer) Factor() (by float64, why string) {
	a := p.condition.Load().factor
	return a.value(), a.why
}

// factorScale multiplies all weights while one is in use, so that fractions of the smallest weight
// are integers.
const factorScale = 1000

// weigh multiplies the weights of candidates by their factor and slow start.
func weigh(candidates []candidate, s *SlowStart, now time.Time) {
	equal := true
	for i := range candidates {
		c := &candidates[i]
		condition := c.peer.condition.Load()
		c.factor = 1
		if !condition.warmFrom.IsZero() {
			c.factor = s.factor(now.Sub(condition.warmFrom))
		}
		c.factor *= condition.factor.value()
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
