package balancer

import (
	"errors"
	"math"
	"slices"
	"time"
)

// SlowStart lets the share of a peer that is new, or that was not used for a
// while, grow from little to all of what its weight asks for, so that caches
// can fill and code be compiled before the peer has to carry its full load.
//
// The weight of such a peer is multiplied by
//
//	max(MinWeight, (age / Window) ^ (1 / Aggression))
//
// where age is the time since it became eligible: Envoy's formula (its
// documentation, "Slow start mode").
//
// Where nobody is warm there is nobody to spare the others. So a peer that
// becomes eligible while the pool has no peer that is, or within Window of the
// first one that did, has its full weight at once.
type SlowStart struct {
	// Window is how long it takes. 0 turns slow start off.
	Window time.Duration
	// Aggression is how fast the share grows at first: in equal steps with 1,
	// the default; faster above, slower below.
	Aggression float64
	// MinWeight is the share at the start, above 0 to 1. Default: 0.1.
	MinWeight float64
}

// withDefaults returns s with defaults filled in, or what is wrong with it.
func (s SlowStart) withDefaults() (SlowStart, error) {
	if s.Aggression == 0 {
		s.Aggression = 1
	}
	if s.MinWeight == 0 {
		s.MinWeight = 0.1
	}
	if s.Window < 0 || !(s.Aggression > 0) || !(s.MinWeight > 0 && s.MinWeight <= 1) {
		return s, errors.New("slow start: want a window of 0 or more, an aggression above 0 and a least weight above 0 to 1")
	}
	return s, nil
}

// factor returns what the weight of a peer is multiplied by at this age.
func (s *SlowStart) factor(age time.Duration) float64 {
	if s.Window <= 0 || age >= s.Window {
		return 1
	}
	return max(s.MinWeight, math.Pow(max(float64(age), 0)/float64(s.Window), 1/s.Aggression))
}

// Weights of a pool in which a peer warms are multiplied by warmingScale, so
// that a fraction of the smallest is a whole number.
const warmingScale = 100

// apply gives candidates that warm the weights that they have now.
func (s *SlowStart) apply(candidates []candidate, now time.Time) {
	warming := func(c candidate) bool { return !c.peer.condition.Load().warmFrom.IsZero() }
	if s.Window <= 0 || !slices.ContainsFunc(candidates, warming) {
		return
	}
	for i := range candidates {
		c := &candidates[i]
		factor := 1.0
		if from := c.peer.condition.Load().warmFrom; !from.IsZero() {
			factor = s.factor(now.Sub(from))
		}
		c.warmth = factor
		c.weight = max(1, int(math.Round(float64(c.weight*warmingScale)*factor)))
	}
}

// Between the steps in which shares grow there is a fiftieth of the window,
// within these bounds.
const (
	minWarmingStep = 20 * time.Millisecond
	maxWarmingStep = time.Second
)

// step returns the time between two steps.
func (s *SlowStart) step() time.Duration {
	return min(max(s.Window/50, minWarmingStep), maxWarmingStep)
}

// warm decides whether a peer warms from now on, before its condition changes
// from was to c. The pool's mutex must be held.
func (p *Pool) warm(was, c *condition) {
	switch {
	case !c.eligible():
		c.warmFrom = time.Time{}
	case was.eligible():
	case !p.warmSince.IsZero() && time.Since(p.warmSince) >= p.options.SlowStart.Window && p.options.SlowStart.Window > 0:
		c.warmFrom = time.Now()
	}
}

// cool ends the slow start of peers that are warm by now, and reports whether
// there are others. The pool's mutex must be held.
func (p *Pool) cool() (warming bool) {
	for _, peer := range p.peers {
		c := peer.condition.Load()
		switch {
		case c.warmFrom.IsZero():
		case time.Since(c.warmFrom) < p.options.SlowStart.Window:
			warming = true
		default:
			was, is := p.change(peer, func(c *condition) { c.warmFrom = time.Time{} })
			p.noteState(peer, was, is)
		}
	}
	return warming
}

// keepWarming sees to the next step if there is to be one.
func (p *Pool) keepWarming(warming bool) {
	if !warming || p.warmTimer != nil {
		return
	}
	p.warmTimer = time.AfterFunc(p.options.SlowStart.step(), func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.warmTimer = nil
		p.publish()
	})
}
