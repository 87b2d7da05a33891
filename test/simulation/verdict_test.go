package simulation

import (
	"context"
	"time"

	"sluice/balancer"
	"sluice/healthcheck"
)

// verdict is the result of the last active check of a peer.
type verdict uint8

const (
	verdictNone verdict = iota
	verdictPassed
	verdictFailed
)

// checks contains the results of active checks of a peer. w.mu guards its fields.
type checks struct {
	latest verdict // none: since the peer is there, or checks are made
	// passed and failed are how many did in a row since the peer is there, or the
	// last reload.
	passed, failed int
}

// probe is the active check of a service. It returns the state of the upstream.
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

// checked records a check. A check from before the last reload, or of an earlier process at
// the address, does not count.
func (s *service) checked(address string, begin time.Time, passed bool) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if begin.Before(s.configure) {
		return
	}
	for _, p := range s.peers {
		if p.actual.Address() != address || !p.left.IsZero() || p.gone || begin.Before(p.added) {
			continue
		}
		p.observe() // what the check before has changed: there may have been no step in between
		if passed {
			p.checks = checks{latest: verdictPassed, passed: p.passed + 1}
		} else {
			p.checks = checks{latest: verdictFailed, failed: p.failed + 1}
		}
	}
}

// recheck records a reload: checks continue, begin or end.
func (s *service) recheck(before *healthcheck.Active) {
	for _, p := range s.peers {
		if p.passed, p.failed = 0, 0; before == nil || s.settings.Active == nil {
			p.latest = verdictNone
		}
	}
}

// checkVerdicts: a peer is unhealthy after the threshold of consecutive failed checks, and
// healthy after that of passed ones. A peer that is long enough in one state has been
// checked.
func (s *service) checkVerdicts() {
	a := s.settings.Active
	if a == nil {
		for _, actual := range s.pool.Snapshot().All {
			if actual.Has(balancer.ReasonActive) {
				s.w.violateLocked("%s: failed a check that is not configured", s.peers[actual])
			}
		}
		return
	}
	for _, actual := range s.pool.Snapshot().All {
		p, out := s.peers[actual], actual.Has(balancer.ReasonActive)
		if out && p.passed >= a.HealthyThreshold || !out && p.failed >= a.UnhealthyThreshold {
			s.w.violateLocked("%s: %d checks passed and %d failed in a row, out: %v", p, p.passed, p.failed, out)
		}
	}
	if !s.w.prompt {
		return
	}
	checks := time.Duration(max(a.UnhealthyThreshold, a.HealthyThreshold) + 2)
	limit := checks * (time.Duration(float64(a.Interval)*(1+float64(a.Jitter))) + a.Timeout)
	if time.Since(s.configure) < limit {
		return
	}
	for _, actual := range s.pool.Snapshot().All {
		p, u := s.peers[actual], s.w.upstreams[actual.Address()]
		passes, certain := u.healthy()
		if certain && time.Since(u.since) >= limit && time.Since(p.added) >= limit && actual.Has(balancer.ReasonActive) == passes {
			s.w.violateLocked("%s: is %s for %v, out by active checks: %v", p, u.kind, time.Since(u.since), passes)
		}
	}
}

// checkEjection: an ejection does not exceed max_ejected.
func (s *service) checkEjection(p *peer) {
	peers, ejected := 0, 0
	for _, actual := range s.pool.Snapshot().All {
		if actual.Has(^balancer.ReasonEjected) {
			continue
		}
		peers++
		if actual.Has(balancer.ReasonEjected) {
			ejected++
		}
	}
	allowed := max(int(float64(s.settings.Passive.MaxEjected)*float64(peers)), 1)
	if ejected > allowed || ejected >= peers {
		s.w.doubtLocked(s.now().unsettled, "%s: %d of %d peers ejected, allowed are %d", p, ejected, peers, allowed)
	}
}
