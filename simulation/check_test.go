package simulation

import (
	"maps"
	"slices"
	"time"

	"sluice/balancer"
	"sluice/discovery"
)

// check holds everything against the model. Nothing moves meanwhile.
func (w *world) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.catalog != nil {
		w.catalog.check()
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
		if time.Since(s.closed) > maxDrainTimeout && !drained(s.pool) {
			w.violate("%s: not drained %v after it was closed", s.name, time.Since(s.closed))
		}
	}
}

func drained(p *balancer.Pool) bool {
	select {
	case <-p.Drained():
		return true
	default:
		return false
	}
}

// checkReports: the set is one that the source told within the debounce's
// limit, and what the latest one takes away is not in it.
func (s *service) checkReports() {
	if s.registry.consul != nil {
		return
	}
	w, all := s.w, s.pool.Snapshot().All
	if len(s.reports) == 0 {
		if len(all) > 0 {
			w.violate("%s: %d peers before the first report", s.name, len(all))
		}
		return
	}
	latest := s.latest().set
	for _, real := range all {
		i, listed := latest[real.ID]
		if !listed {
			w.violate("%s: still in the set", s.peers[real])
		} else if real.Instance().Serving() && !i.Serving() {
			w.violate("%s: still in service, the registry has %s", s.peers[real], describeInstance(i))
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
	w.violate("%s: a set that nobody told within %v", s.name, w.maxWait)
}

// amountsTo reports whether peers are the instances of set.
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

// checkCounters: what peers have counted is what was done, and those that left
// drain as long as something is in flight and no longer.
func (s *service) checkCounters() {
	w := s.w
	draining := s.pool.Snapshot().Draining
	for real, p := range s.peers {
		if p.closed && p.inflight == 0 && p.checkedEnd {
			continue
		}
		if n := real.Inflight(); n != p.inflight {
			w.violate("%s: %d in flight, want %d", p, n, p.inflight)
		}
		if got := real.Outcomes(); got != p.ended {
			w.violate("%s: outcomes %v, want %v", p, got, p.ended)
		}
		if want := !p.left.IsZero() && p.inflight > 0 && !p.cut; slices.Contains(draining, real) != want {
			w.violate("%s: drains: %v, want %v", p, !want, want)
		}
		if p.closed != p.gone || p.gone != (!p.left.IsZero() && (p.inflight == 0 || p.cut)) {
			w.violate("%s: transport closed: %v, gone: %v, cut: %v", p, p.closed, p.gone, p.cut)
		}
		p.checkedEnd = p.closed && p.inflight == 0
	}
}

// checkRemoval: a peer leaves only if the registry did not have it all along.
func (s *service) checkRemoval(p *peer) {
	if !s.closed.IsZero() {
		return
	}
	since, present := s.registry.present[p.real.ID]
	if present && since.Before(p.added) && !s.registry.lied(p.added) {
		s.w.violate("%s: removed, though the registry has had it since %v", p, since.Sub(s.w.begin))
	}
}

// checkConverged: the pool has what the registry has.
func (s *service) checkConverged() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	want := processes(s.registry.told())
	equal := discovery.Instance.Equal
	if s.registry.consul != nil {
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
		s.w.violate("%s: the pool has %s, the registry %s", s.name, describe(got), describe(slices.Collect(maps.Values(want))))
	}
}

// checkAllServe: every peer that the registry wants used is.
func (s *service) checkAllServe() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for _, real := range s.pool.Snapshot().All {
		if real.Has(^balancer.ReasonConsul) {
			s.w.violate("%s: %q, though everything works", s.peers[real], real.Reasons())
		}
	}
}

// checkEnd: nothing is left of anything.
func (w *world) checkEnd() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.retired {
		if !drained(s.pool) {
			w.violate("%s: not drained at the end", s.name)
		}
		for _, p := range s.peers {
			if p.inflight != 0 || p.real.Inflight() != 0 || !p.closed {
				w.violate("%s: %d in flight at the end, closed: %v", p, p.real.Inflight(), p.closed)
			}
		}
		if s.waiting != 0 || s.pool.Pending() != 0 {
			w.violate("%s: requests wait at the end", s.name)
		}
	}
}
