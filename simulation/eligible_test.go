package simulation

import (
	"slices"
	"strings"

	"sluice/balancer"
	"sluice/discovery"
)

// checkSnapshot: the snapshot has the peers that are in the set. Of those that
// nothing speaks against, or in panic of those that may be used then, it uses as
// many as the subset wants.
func (s *service) checkSnapshot() {
	w, snapshot := s.w, s.pool.Snapshot()
	s.observe()
	var free, inPanic []*balancer.Peer
	onlyEjected := false
	for _, real := range snapshot.All {
		p := s.peers[real]
		if !p.left.IsZero() || p.gone || p.closed {
			w.violate("%s: in the set after it left", p)
		}
		if p.operator != real.Has(balancer.ReasonDrain) {
			w.violate("%s: drained by the operator: %v, want %v", p, !p.operator, p.operator)
		}
		if !real.Has(^balancer.Reason(0)) {
			free = append(free, real)
		}
		if s.usableInPanic(p) {
			inPanic = append(inPanic, real)
		}
		if real.Has(balancer.ReasonEjected) && !real.Has(^balancer.ReasonEjected) {
			onlyEjected = true
		}
		if i := real.Instance(); !i.Probation.IsZero() {
			s.checkProbation(p)
		} else if real.Has(balancer.ReasonConsul) == s.wanted(i) {
			w.violate("%s: consul's reason is %v for %s", p, real.Has(balancer.ReasonConsul), describeInstance(i))
		}
		if real.Used() != slices.Contains(snapshot.Eligible, real) {
			w.violate("%s: used: %v, eligible: %v", p, real.Used(), !real.Used())
		}
	}
	if len(snapshot.Eligible) == 0 && onlyEjected {
		w.violate("%s: the last peer is ejected", s.name)
	}
	s.checkTiers(free, inPanic)
	if n := s.pool.Pending(); n != s.waiting || n > 0 && len(snapshot.Eligible) > 0 {
		w.violate("%s: %d requests wait for a peer, want %d; %d are eligible", s.name, n, s.waiting, len(snapshot.Eligible))
	}
}

// wanted reports whether an instance is to be used as far as the registry goes.
func (s *service) wanted(i discovery.Instance) bool {
	return i.Serving() || s.overridden(i) || !i.Probation.IsZero()
}

// overridden reports whether active checks make up for what the registry says.
func (s *service) overridden(i discovery.Instance) bool {
	return i.Status == discovery.StatusCritical && s.settings.Active != nil && s.settings.Active.OverridesConsul
}

// usableInPanic reports whether nobody but sluice itself speaks against a peer,
// and that is not all that is known of it.
func (s *service) usableInPanic(p *peer) bool {
	return !p.real.Has(^(balancer.ReasonActive | balancer.ReasonEjected)) && !p.unproven
}

// observe takes note of who has yet to pass a first check.
func (s *service) observe() {
	for _, real := range s.pool.Snapshot().All {
		s.peers[real].observe()
	}
}

// observe takes note of whether the peer has yet to pass a first check. A check
// that fails replaces the words, but not the fact.
func (p *peer) observe() {
	if !p.real.Has(balancer.ReasonActive) {
		p.unproven = false
	} else if slices.ContainsFunc(p.real.Reasons(), func(why string) bool { return strings.HasSuffix(why, "not checked yet") }) {
		p.unproven = true
	}
}
