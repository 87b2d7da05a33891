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

// checkSnapshot: the snapshot has the peers that are in the set, those that
// nothing speaks against are eligible, and those that left drain.
func (s *service) checkSnapshot() {
	w, snapshot := s.w, s.pool.Snapshot()
	var free []*balancer.Peer // those that nothing speaks against
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
		if real.Has(balancer.ReasonEjected) && !real.Has(^balancer.ReasonEjected) {
			onlyEjected = true
		}
		if i := real.Instance(); real.Has(balancer.ReasonConsul) == (i.Serving() || s.overridden(i)) {
			w.violate("%s: consul's reason is %v for %s", p, real.Has(balancer.ReasonConsul), describeInstance(i))
		}
	}
	if len(snapshot.Eligible) == 0 && onlyEjected {
		w.violate("%s: the last peer is ejected", s.name)
	}
	if !snapshot.Panic && !slices.Equal(free, snapshot.Eligible) {
		w.violate("%s: %d eligible peers, want %d", s.name, len(snapshot.Eligible), len(free))
	}
	if snapshot.Panic {
		if float64(len(free)) >= s.options.PanicThreshold*float64(len(snapshot.Eligible)) {
			w.violate("%s: panic with %d of %d", s.name, len(free), len(snapshot.Eligible))
		}
		for _, real := range snapshot.Eligible {
			if real.Has(balancer.ReasonConsul | balancer.ReasonDrain) {
				w.violate("%s: used in panic", s.peers[real])
			}
		}
		for _, real := range free {
			if !slices.Contains(snapshot.Eligible, real) {
				w.violate("%s: not used in panic", s.peers[real])
			}
		}
	}
	if n := s.pool.Pending(); n != s.waiting || n > 0 && len(snapshot.Eligible) > 0 {
		w.violate("%s: %d requests wait for a peer, want %d; %d are eligible", s.name, n, s.waiting, len(snapshot.Eligible))
	}
}

// overridden reports whether active checks make up for what the registry says.
func (s *service) overridden(i discovery.Instance) bool {
	return i.Status == discovery.StatusCritical && s.settings.Active != nil && s.settings.Active.OverridesConsul
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

// checkVerdicts: who fails every active check for so long that it must be
// known is out, and who passes them is not.
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

// checkRemoval: a peer leaves only if the registry did not have it all along.
func (s *service) checkRemoval(p *peer) {
	if !s.closed.IsZero() {
		return
	}
	since, present := s.registry.present[p.real.ID]
	if present && since.Before(p.added) && !s.registry.lies && s.registry.lied.Before(p.added) {
		s.w.violate("%s: removed, though the registry has had it since %v", p, since.Sub(s.w.begin))
	}
}

// checkTry: a request may be sent to this peer now.
func (s *service) checkTry(r *request, p *peer) {
	w, now, real := s.w, time.Now(), p.real
	if p.gone && p.left != now && !p.cut {
		w.violate("request %d: on %s, which has drained", r.number, p)
	}
	if !p.left.IsZero() && p.left != now {
		w.violate("request %d: on %s, which left %v ago", r.number, p, now.Sub(p.left))
	}
	if p.operator && p.operated != now {
		w.violate("request %d: on %s, which the operator drains", r.number, p)
	}
	if r.tried[real] {
		w.violate("request %d: on %s twice", r.number, p)
	}
	if s.changed != now && s.configure != now {
		against := ^balancer.Reason(0)
		if s.pool.Snapshot().Panic {
			against = balancer.ReasonConsul | balancer.ReasonDrain
		}
		if real.Has(against) && real.Since() != now {
			w.violate("request %d: on %s, which is %v: %q", r.number, p, real.State(), real.Reasons())
		}
	}
	if limit := s.options.Limits.PeerRequests; limit > 0 && p.inflight > limit {
		w.violate("request %d: on %s, which has %d in flight", r.number, p, p.inflight)
	}
	if limit := s.options.Limits.Requests; limit > 0 && s.inflight() > limit {
		w.violate("request %d: %d in flight in all", r.number, s.inflight())
	}
	budget := s.budget()
	allowed := budget.MinPerSecond*(10+now.Sub(s.began).Seconds()) + budget.Ratio*float64(s.firsts) + 1
	if float64(s.retries) > allowed {
		w.violate("%s: %d retries of %d requests", s.name, s.retries, s.firsts)
	}
	if s.registry.consul != nil || !s.closed.IsZero() {
		return
	}
	latest := s.latest()
	if i, listed := latest.set[real.ID]; latest.at != now && (!listed || !i.Serving() && !s.overridden(i) && s.configure != now) {
		w.violate("request %d: on %s, the registry has %s", r.number, p, describeInstance(i))
	}
}

func (s *service) inflight() int {
	n := 0
	for _, p := range s.peers {
		n += p.inflight
	}
	return n
}

// check: a request that failed had no other chance. w.mu must be held.
func (r *request) check(o balancer.Outcome, tries int, err error) {
	w, s := r.w, r.service
	if tries != r.tries {
		w.violate("request %d: %d tries, want %d", r.number, tries, r.tries)
	}
	snapshot := s.pool.Snapshot()
	settled := s.changed != time.Now() && s.configure != time.Now()
	limits := s.options.Limits
	freed := s.freed == time.Now() && s.freedBy != r // perhaps the pool does not know yet
	ok := true
	switch {
	case r.answered:
		w.counts["request answered"]++
	case err == nil:
		w.counts["request failed"]++
		if o.Class == balancer.OutcomeClientGone {
			w.counts["client gone"]++
			break
		}
		ok = r.Started() || !r.Replayable() || r.reached >= r.routed.Retry.Attempts || tries >= maxTries
	default:
		w.counts["request refused"]++
		switch err {
		case balancer.ErrNoPeers:
			ok = len(snapshot.All) == 0 || !settled
		case balancer.ErrNoEligible:
			ok = len(snapshot.Eligible) == 0 || !settled
		case balancer.ErrAllTried:
			for _, real := range snapshot.Eligible {
				ok = ok && (r.tried[real] || !settled)
			}
		case balancer.ErrSaturated:
			ok = limits.Requests > 0 && (s.inflight() >= limits.Requests || freed)
		case balancer.ErrPeersSaturated:
			ok = limits.PeerRequests > 0
			for _, real := range snapshot.Eligible {
				full := s.peers[real].inflight >= limits.PeerRequests || r.tried[real]
				ok = ok && (full || freed || !settled)
			}
		case balancer.ErrTooManyPending:
			ok = limits.Pending > 0 && (s.waiting >= limits.Pending || !settled)
		case balancer.ErrTooManyRetries:
			ok = limits.Retries > 0 && tries > 0 && (s.retrying >= limits.Retries || freed)
		case balancer.ErrRetryBudget:
			// What is saved up never gets less than MinPerSecond amounts to, except
			// by retries.
			ok = tries > 0 && float64(s.retries+1) > 10*s.budget().MinPerSecond
		default:
			ok = false
		}
		if waited := err == balancer.ErrNoPeers || err == balancer.ErrNoEligible; waited && tries == 0 && time.Since(r.begin) < r.routed.WaitForPeer {
			ok = false
		}
	}
	if !ok {
		w.violate("request %d: given up after %d tries with %s, %v", r.number, tries, o.Class, err)
	}
	limited := limits.Requests > 0 || limits.PeerRequests > 0
	if r.sure && settled && !limited && len(snapshot.Eligible) > 0 && (!r.answered || o.Class != balancer.OutcomeOK) {
		w.violate("request %d: failed with %s, %v, though everything works", r.number, o.Class, err)
	}
	if r.hedged {
		w.counts["hedge"]++
	}
	w.counts["peer left"] += r.left
	w.counts["retry"] += max(tries-1, 0)
	if tries > 0 && r.first != r.begin {
		w.counts["request waited"]++
	}
}

// maxTries is how many tries the attempt loop makes at most.
const maxTries = 5

// checkConverged: the pool has what the registry has.
func (s *service) checkConverged() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	want := processes(s.registry.entries)
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
