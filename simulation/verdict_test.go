package simulation

import (
	"context"
	"time"

	"sluice/balancer"
	"sluice/healthcheck"
)

// verdict is what the last active check of a peer found.
type verdict uint8

const (
	verdictNone verdict = iota
	verdictPassed
	verdictFailed
)

// checks is what active checks have found of a peer. w.mu guards its fields.
type checks struct {
	latest verdict // none: since the peer is there, or checks are made
	// passed and failed are how many did in a row since the peer is there, or the
	// last reload.
	passed, failed int
}

// probe is the active check of a service: it finds what the upstream is.
type probe struct{ service *service }

func (p *probe) Forget(string)  {}
func (p *probe) Close()         {}
func (p *probe) String() string { return "simulated check" }

func (p *probe) Check(ctx context.Context, t healthcheck.Target) error {
	begin := time.Now()
	err := p.service.w.probe(ctx, t.Address)
	p.service.checked(t.Address, begin, err == nil)
	return err
}

// checked takes note of a check. One that began before the last reload does not
// count, nor one of somebody who was at the address before.
func (s *service) checked(address string, begin time.Time, passed bool) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if begin.Before(s.configure) {
		return
	}
	for _, p := range s.peers {
		if p.real.Address() != address || !p.left.IsZero() || p.gone || begin.Before(p.added) {
			continue
		}
		if passed {
			p.checks = checks{latest: verdictPassed, passed: p.passed + 1}
		} else {
			p.checks = checks{latest: verdictFailed, failed: p.failed + 1}
		}
	}
}

// recheck takes note of a reload: checks go on, or begin or end.
func (s *service) recheck(before *healthcheck.Active) {
	for _, p := range s.peers {
		if p.passed, p.failed = 0, 0; before == nil || s.settings.Active == nil {
			p.latest = verdictNone
		}
	}
}

// checkVerdicts: who fails as many active checks in a row as it takes is out, and
// who passes as many is not. Who is in one of both states for so long that this
// must be known has been checked.
func (s *service) checkVerdicts() {
	a := s.settings.Active
	if a == nil {
		for _, real := range s.pool.Snapshot().All {
			if real.Has(balancer.ReasonActive) {
				s.w.violate("%s: failed a check that nobody makes", s.peers[real])
			}
		}
		return
	}
	for _, real := range s.pool.Snapshot().All {
		p, out := s.peers[real], real.Has(balancer.ReasonActive)
		if out && p.passed >= a.HealthyThreshold || !out && p.failed >= a.UnhealthyThreshold {
			s.w.violate("%s: %d checks passed and %d failed in a row, out: %v", p, p.passed, p.failed, out)
		}
	}
	if !s.w.prompt {
		return
	}
	checks := time.Duration(max(a.UnhealthyThreshold, a.HealthyThreshold) + 2)
	limit := checks * (time.Duration(float64(a.Interval)*(1+a.Jitter)) + a.Timeout)
	if time.Since(s.configure) < limit {
		return
	}
	for _, real := range s.pool.Snapshot().All {
		p, u := s.peers[real], s.w.upstreams[real.Address()]
		passes, certain := u.healthy()
		if certain && time.Since(u.since) >= limit && time.Since(p.added) >= limit && real.Has(balancer.ReasonActive) == passes {
			s.w.violate("%s: is %s for %v, out by active checks: %v", p, u.kind, time.Since(u.since), passes)
		}
	}
}

// checkEjection: a peer that is being ejected is not one too many.
func (s *service) checkEjection(p *peer) {
	peers, ejected := 0, 0
	for _, real := range s.pool.Snapshot().All {
		if real.Has(^balancer.ReasonEjected) {
			continue
		}
		peers++
		if real.Has(balancer.ReasonEjected) {
			ejected++
		}
	}
	allowed := max(int(s.settings.Passive.MaxEjected*float64(peers)), 1)
	if now := time.Now(); s.changed != now && s.configure != now && (ejected > allowed || ejected >= peers) {
		s.w.violate("%s: %d of %d peers ejected, allowed are %d", p, ejected, peers, allowed)
	}
}
