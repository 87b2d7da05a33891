package simulation

import (
	"slices"
	"strings"

	"sluice/balancer"
	"sluice/discovery"
)

// checkSnapshot: the snapshot has the peers of the set. It uses the healthy ones, or in panic those
// that may be used then, up to the size of the subset.
func (s *service) checkSnapshot() {
	w, snapshot := s.w, s.pool.Snapshot()
	s.observe()
	var free, inPanic []*balancer.Peer
	onlyEjected := false
	for _, actual := range snapshot.All {
		p := s.peers[actual]
		if !p.left.IsZero() || p.gone || p.closed {
			w.violateLocked("%s: in the set after it left", p)
		}
		if p.operator != actual.Has(balancer.ReasonDrain) {
			w.violateLocked("%s: drained by the operator: %v, want %v", p, !p.operator, p.operator)
		}
		if !actual.Has(^balancer.Reason(0)) {
			free = append(free, actual)
		}
		if s.usableInPanic(p) {
			inPanic = append(inPanic, actual)
		}
		if actual.Has(balancer.ReasonEjected) && !actual.Has(^balancer.ReasonEjected) {
			onlyEjected = true
		}
		if i := actual.Instance(); !i.Probation.IsZero() {
			s.checkProbation(p)
		} else if actual.Has(balancer.ReasonRegistry) == s.wanted(i) {
			w.violateLocked("%s: consul's reason is %v for %s", p, actual.Has(balancer.ReasonRegistry), describeInstance(i))
		}
		if actual.Used() != slices.Contains(snapshot.Eligible, actual) {
			w.violateLocked("%s: used: %v, eligible: %v", p, actual.Used(), !actual.Used())
		}
	}
	if len(snapshot.Eligible) == 0 && onlyEjected {
		w.violateLocked("%s: the last peer is ejected", s.name)
	}
	s.checkTiers(free, inPanic)
	s.checkGroups()
	grouped := len(s.options.Groups) > 0 // a request may wait for a peer of its group
	if n := s.pool.Admission.Pending(); n != s.waiting || n > 0 && len(snapshot.Eligible) > 0 && !grouped {
		w.violateLocked("%s: %d requests wait for a peer, want %d; %d are eligible", s.name, n, s.waiting, len(snapshot.Eligible))
	}
}

// wanted reports whether the registry allows the use of an instance.
func (s *service) wanted(i discovery.Instance) bool {
	return i.Serving() || s.overridden(i) || !i.Probation.IsZero()
}

// overridden reports whether active checks override the status in the registry.
func (s *service) overridden(i discovery.Instance) bool {
	return i.Status == discovery.StatusCritical && s.settings.Active != nil && s.settings.Active.OverridesRegistry
}

// usableInPanic reports whether only verdicts of sluice make a peer ineligible, and it has passed a
// required first check.
func (s *service) usableInPanic(p *peer) bool {
	return !p.actual.Has(^(balancer.ReasonActive | balancer.ReasonEjected)) && !p.unproven
}

// observe records the peers that have not passed a required first check.
func (s *service) observe() {
	for _, actual := range s.pool.Snapshot().All {
		s.peers[actual].observe()
	}
}

// observe records whether the peer has not passed a required first check. A failed check
// changes the text of the reason, but not the state.
func (p *peer) observe() {
	if !p.actual.Has(balancer.ReasonActive) {
		p.unproven = false
	} else if slices.ContainsFunc(p.actual.Reasons(), func(why string) bool { return strings.HasSuffix(why, "not checked yet") }) {
		p.unproven = true
	}
}
