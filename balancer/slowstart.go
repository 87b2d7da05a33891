package balancer

import (
	"errors"
	"math"
	"time"

	"sluice/observe/panics"
)

// SlowStart ramps the weight of a peer that is new or has returned, so that caches fill
// and code is compiled before it carries its full load. The weight is multiplied by
//
//	max(MinWeight, (age / Window) ^ (1 / Aggression))
//
// where age is the time since it became eligible: Envoy's formula ("Slow start mode").
//
// A peer that becomes eligible while no other is, or within Window of the first one,
// has its full weight at once, since no warm peer could take its share.
type SlowStart struct {
	// Window is the duration. 0 turns slow start off.
	Window time.Duration
	// Aggression above 1 ramps faster at first, below 1 slower; 1 is linear.
	Aggression float64
	// MinWeight is the initial factor, above 0 to 1.
	MinWeight float64
}

func (s SlowStart) check() error {
	if s.Window < 0 || s.Window > 0 && !(s.Aggression > 0 && s.MinWeight > 0 && s.MinWeight <= 1) {
		return errors.New("slow start: want a window of 0 or more, an aggression above 0 and a least weight above 0 to 1")
	}
	return nil
}

// factor returns the factor of the weight at this age.
func (s *SlowStart) factor(age time.Duration) float64 {
	if s.Window <= 0 || age >= s.Window {
		return 1
	}
	return max(s.MinWeight, math.Pow(max(float64(age), 0)/float64(s.Window), 1/s.Aggression))
}

// Weights grow every fiftieth of the window, within these bounds.
const (
	minWarmingStep = 20 * time.Millisecond
	maxWarmingStep = time.Second
)

func (s *SlowStart) step() time.Duration {
	return min(max(s.Window/50, minWarmingStep), maxWarmingStep)
}

// warmLocked starts or ends the slow start of a peer whose condition changes from was
// to c.
func (p *Pool) warmLocked(was, c *condition) {
	switch {
	case !c.eligible():
		c.warmFrom = time.Time{}
	case was.eligible():
	case !p.warmSince.IsZero() && time.Since(p.warmSince) >= p.options.SlowStart.Window && p.options.SlowStart.Window > 0:
		c.warmFrom = time.Now()
	}
}

// endWarmingLocked ends the slow start of warm peers, and reports whether others still
// warm.
func (p *Pool) endWarmingLocked() (warming bool) {
	for _, peer := range p.peers {
		c := peer.condition.Load()
		switch {
		case c.warmFrom.IsZero():
		case time.Since(c.warmFrom) < p.options.SlowStart.Window:
			warming = true
		default:
			was, is := p.changeLocked(peer, func(c *condition) { c.warmFrom = time.Time{} })
			p.noteStateLocked(peer, was, is)
		}
	}
	return warming
}

// scheduleWarmingLocked starts the timer of the next step.
func (p *Pool) scheduleWarmingLocked(warming bool) {
	if !warming || p.warmTimer != nil {
		return
	}
	p.warmTimer = time.AfterFunc(p.options.SlowStart.step(), func() {
		defer panics.Contain(panics.Task, nil)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.warmTimer = nil
		p.publishLocked()
	})
}
