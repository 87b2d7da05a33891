package simulation

import (
	"maps"
	"slices"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/observe/wake"
)

// check compares everything with the model, while all goroutines wait.
func (w *world) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judgeLocked()
	if w.catalog != nil {
		w.catalog.checkLocked()
	}
	for _, s := range w.services {
		s.checkSnapshot()
		s.checkReports()
		s.checkCounters()
		s.checkVerdicts()
	}
	for n := 0; n < len(w.retired); n++ {
		s := w.retired[n]
		s.checkCounters()
		if time.Since(s.closed) > maxDrainTimeout && !wake.Closed(s.pool.Drained()) {
			w.violateLocked("%s: not drained %v after it was closed", s.name, time.Since(s.closed))
		}
	}
}

// checkReports: the set was reported within the limit of the debounce, and has no instance that the
// latest report lacks.
func (s *service) checkReports() {
	if s.registry.consul != nil {
		return
	}
	w, all := s.w, s.pool.Snapshot().All
	if len(s.reports) == 0 {
		if len(all) > 0 {
			w.violateLocked("%s: %d peers before the first report", s.name, len(all))
		}
		return
	}
	latest := s.latest().set
	for _, actual := range all {
		i, listed := latest[actual.ID]
		if !listed {
			w.violateLocked("%s: still in the set", s.peers[actual])
		} else if actual.Instance().Serving() && !i.Serving() {
			w.violateLocked("%s: still in service, the registry has %s", s.peers[actual], describeInstance(i))
		}
	}
	for n := len(s.reports) - 1; n >= 0; n-- {
		if n < len(s.reports)-1 && time.Since(s.reports[n+1].at) > w.maxWait {
			break
		}
		if amountsTo(all, s.reports[n].set, discovery.Instance.Equal) {
			return
		}
	}
	w.violateLocked("%s: a set that was not reported within %v", s.name, w.maxWait)
}

// amountsTo reports whether peers are exactly the instances of set.
func amountsTo(peers []*balancer.Peer, set map[discovery.Key]discovery.Instance, equal func(a, b discovery.Instance) bool) bool {
	if len(peers) != len(set) {
		return false
	}
	for _, p := range peers {
		if i, ok := set[p.ID]; !ok || !equal(i, p.Instance()) {
			return false
		}
	}
	return true
}

// checkCounters: the counters of peers are right, and removed peers drain exactly as long as
// requests are in flight.
func (s *service) checkCounters() {
	w := s.w
	draining := s.pool.Snapshot().Draining
	for actual, p := range s.peers {
		if p.closed && p.inflight == 0 && p.checkedEnd {
			continue
		}
		if n := actual.Inflight(); n != p.inflight {
			w.violateLocked("%s: %d in flight, want %d", p, n, p.inflight)
		}
		if got := actual.Outcomes(); got != p.ended {
			w.violateLocked("%s: outcomes %v, want %v", p, got, p.ended)
		}
		if want := !p.left.IsZero() && p.inflight > 0 && !p.cut; slices.Contains(draining, actual) != want {
			w.violateLocked("%s: drains: %v, want %v", p, !want, want)
		}
		if p.closed != p.gone || p.gone != (!p.left.IsZero() && (p.inflight == 0 || p.cut)) {
			w.violateLocked("%s: transport closed: %v, gone: %v, cut: %v", p, p.closed, p.gone, p.cut)
		}
		p.checkedEnd = p.closed && p.inflight == 0
	}
}

// checkRemoval: a peer is removed only if the registry did not always have it.
func (s *service) checkRemoval(p *peer) {
	if !s.closed.IsZero() {
		return
	}
	since, present := s.registry.present[p.actual.ID]
	if present && since.Before(p.added) && !s.registry.lied(p.added) {
		s.w.violateLocked("%s: removed, though the registry has had it since %v", p, since.Sub(s.w.begin))
	}
}

// checkConverged: the pool has the set of the registry.
func (s *service) checkConverged() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	want := processes(s.registry.reportedSet())
	equal := discovery.Instance.Equal
	if s.registry.consul != nil {
		s.registry.weigh(want)
		maintain(want, s.registry.entries)
		equal = func(a, b discovery.Instance) bool {
			return a.Status == b.Status && a.Weight == b.Weight
		}
	}
	if all := s.pool.Snapshot().All; !amountsTo(all, want, equal) {
		var got []discovery.Instance
		for _, p := range all {
			got = append(got, p.Instance())
		}
		s.w.violateLocked("%s: the pool has %s, the registry %s", s.name, describe(got), describe(slices.Collect(maps.Values(want))))
	}
}

// checkAllServe: each peer that the registry allows is used.
func (s *service) checkAllServe() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for _, actual := range s.pool.Snapshot().All {
		if actual.Has(^balancer.ReasonRegistry) {
			s.w.violateLocked("%s: %q, though everything works", s.peers[actual], actual.Reasons())
		}
	}
}

// checkEnd: no pool, peer or request is left.
func (w *world) checkEnd() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judgeLocked()
	for _, s := range w.retired {
		if !wake.Closed(s.pool.Drained()) {
			w.violateLocked("%s: not drained at the end", s.name)
		}
		for _, p := range s.peers {
			if p.inflight != 0 || p.actual.Inflight() != 0 || !p.closed {
				w.violateLocked("%s: %d in flight at the end, closed: %v", p, p.actual.Inflight(), p.closed)
			}
		}
		if s.waiting != 0 || s.pool.Admission.Pending() != 0 {
			w.violateLocked("%s: requests wait at the end", s.name)
		}
	}
}
