package balancer

import (
	"math"
	"time"

	"sluice/config/units"
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
	Window time.Duration `key:"slow_start" default:"0s" min:"0s" max:"1h"`
	// Aggression above 1 ramps faster at first, below 1 slower; 1 is linear.
	Aggression units.Ratio `key:"slow_start_aggression" default:"1.0" min:"0.1" max:"10"`
	// MinWeight is the initial factor.
	MinWeight units.Ratio `key:"slow_start_min" default:"10%" min:"0.01" max:"1"`
}

// factor returns the factor of the weight at this age.
func (s *SlowStart) factor(age time.Duration) float64 {
	if s.Window <= 0 || age >= s.Window {
		return 1
	}
	return max(float64(s.MinWeight), math.Pow(max(float64(age), 0)/float64(s.Window), 1/float64(s.Aggression)))
}

// Weights grow every fiftieth of the window, within these bounds.
const (
	minWarmingStep = 20 * time.Millisecond
	maxWarmingStep = time.Second
)

func (s *SlowStart) step() time.Duration {
	return min(max(s.Window/50, minWarmingStep), maxWarmingStep)
}

// warming is the slow start of a pool's peers. Pool.mu guards it.
type warming struct {
	since time.Time   // since when a peer is eligible; zero: none is
	timer *time.Timer // runs while a peer warms
}

// change starts or ends the slow start of a peer whose condition changes from was to c.
func (w *warming) change(was, c *condition, window time.Duration) {
	switch {
	case !c.eligible():
		c.warmFrom = time.Time{}
	case was.eligible():
	case !w.since.IsZero() && time.Since(w.since) >= window && window > 0:
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
			p.notices.queueState(peer, was, is)
		}
	}
	return warming
}

// scheduleWarmingLocked starts the timer of the next step.
func (p *Pool) scheduleWarmingLocked(warming bool) {
	if !warming || p.warming.timer != nil {
		return
	}
	p.warming.timer = time.AfterFunc(p.options.SlowStart.step(), func() {
		defer panics.Contain(panics.Task, nil)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.warming.timer = nil
		p.publishLocked()
	})
}
