package simulation

import (
	"slices"
	"time"

	"sluice/balancer"
)

// checkTry checks that a request may be sent to this peer now.
func (s *service) checkTry(r *request, p *peer) {
	w, now, instant, actual := s.w, time.Now(), s.now(), p.actual
	if p.gone && p.left != now && !p.cut {
		w.violateLocked("request %d: on %s, which has drained", r.number, p)
	}
	if !p.left.IsZero() && p.left != now {
		w.violateLocked("request %d: on %s, which left %v ago", r.number, p, now.Sub(p.left))
	}
	if p.operator {
		w.doubtLocked(func() bool { return p.operated.Equal(now) }, "request %d: on %s, which the operator drains", r.number, p)
	}
	switch {
	case r.tried[actual] && !r.spared[actual]:
		w.violateLocked("request %d: on %s twice", r.number, p)
	case r.tried[actual] && len(r.untried()) > 0:
		w.doubtLocked(instant.shifted, "request %d: on %s again, though it has not tried %s", r.number, p, s.peers[r.untried()[0]])
	}
	s.checkTierOfTry(r, p)
	s.checkGroupOfTry(r, p)
	if named := r.named(); named != nil && named != actual && r.tries == 1 && r.group == "" &&
		slices.Contains(s.pool.Snapshot().Eligible, named) && s.options.Limits.PeerRequests == 0 {
		w.doubtLocked(instant.shifted, "request %d: on %s, though it belongs to %s", r.number, p, s.peers[named])
	}
	against := ^balancer.Reason(0)
	if s.pool.Snapshot().Panic || r.mayResort() {
		against = balancer.ReasonRegistry | balancer.ReasonDrain
	}
	if actual.Has(against) && actual.Since() != now {
		w.doubtLocked(instant.unsettled, "request %d: on %s, which is %v: %q", r.number, p, actual.State(), actual.Reasons())
	}
	if limit := s.options.Limits.PeerRequests; limit > 0 && p.inflight > limit {
		w.violateLocked("request %d: on %s, which has %d in flight", r.number, p, p.inflight)
	}
	if limit := s.options.Limits.Requests; limit > 0 && s.inflight() > limit {
		w.violateLocked("request %d: %d in flight in all", r.number, s.inflight())
	}
	budget := s.budget()
	allowed := float64(budget.MinPerSecond)*(10+now.Sub(s.began).Seconds()) + float64(budget.Ratio)*float64(s.firsts) + 1
	if float64(s.retries) > allowed {
		w.doubtLocked(func() bool { return instant.others(r) }, "%s: %d retries of %d requests", s.name, s.retries, s.firsts)
	}
	if s.registry.consul != nil || !s.closed.IsZero() {
		return
	}
	latest := s.latest()
	if i, listed := latest.set[actual.ID]; latest.at != now && (!listed || !s.wanted(i) && !instant.configured) {
		w.violateLocked("request %d: on %s, the registry has %s", r.number, p, describeInstance(i))
	}
}

// mayResort reports whether the request may go to a peer that only sluice's own verdicts take out
// of use: it has tried all others.
func (r *request) mayResort() bool {
	return r.tries > 1 && len(r.untried()) == 0 && r.service.options.PanicThreshold > 0
}

func (s *service) inflight() int {
	n := 0
	for _, p := range s.peers {
		n += p.inflight
	}
	return n
}

// checkLocked checks that a failed request could not be tried elsewhere.
func (r *request) checkLocked(o balancer.Outcome, tries int, err error) {
	w, s := r.w, r.service
	r.stir()
	if tries != r.tries {
		w.violateLocked("request %d: %d tries, want %d", r.number, tries, r.tries)
	}
	parts, untried := r.parts(), r.untried()
	last := parts[len(parts)-1]
	limits, instant := s.options.Limits, s.now()
	lifted := func() bool { return instant.shifted() || instant.others(r) }
	possible, ok := true, true // the one for sure, the other unless lifted
	switch {
	case r.answered:
		w.counts["request answered"]++
	case err == nil:
		w.counts["request failed"]++
		if o.Class == balancer.OutcomeClientGone {
			w.counts["client gone"]++
			break
		}
		possible = r.Started() || !r.Replayable() || r.reached >= r.routed.Retry.Attempts || tries >= maxTries
	default:
		w.counts["request refused"]++
		switch err {
		case balancer.ErrNoPeers:
			ok = len(last.All) == 0 && len(untried) == 0
		case balancer.ErrNoEligible:
			ok = len(last.Eligible) == 0 && len(untried) == 0
		case balancer.ErrAllTried:
			ok = len(untried) == 0 && !slices.ContainsFunc(last.Eligible, func(actual *balancer.Peer) bool {
				return r.spared[actual] && actual.State() <= balancer.StateWarming
			})
		case balancer.ErrSaturated:
			possible, ok = limits.Requests > 0, s.inflight() >= limits.Requests
		case balancer.ErrPeersSaturated:
			possible = limits.PeerRequests > 0
			for _, actual := range untried {
				ok = ok && s.peers[actual].inflight >= limits.PeerRequests
			}
		case balancer.ErrTooManyPending:
			possible, ok = limits.Pending > 0, s.waiting >= limits.Pending
		case balancer.ErrTooManyRetries:
			possible, ok = limits.Retries > 0 && tries > 0, s.retrying >= limits.Retries
		case balancer.ErrRetryBudget:
			// What is saved up never gets less than MinPerSecond amounts to, except
			// by retries.
			possible, ok = tries > 0, s.retries+1 > 10*s.budget().MinPerSecond
		default:
			possible = false
		}
		if waited := err == balancer.ErrNoPeers || err == balancer.ErrNoEligible; waited && tries == 0 && s.closed.IsZero() && time.Since(r.begin) < r.routed.WaitForPeer {
			possible = false
		}
	}
	switch text := "request %d: given up after %d tries with %s, %v"; {
	case !possible:
		w.violateLocked(text, r.number, tries, o.Class, err)
	case !ok:
		w.doubtLocked(lifted, text, r.number, tries, o.Class, err)
	}
	limited := limits.Requests > 0 || limits.PeerRequests > 0
	if r.sure && !limited && len(untried) > 0 && (!r.answered || o.Class != balancer.OutcomeOK) {
		w.doubtLocked(instant.shifted, "request %d: failed with %s, %v, though everything works", r.number, o.Class, err)
	}
	w.counts["peer left"] += r.left
	w.counts["retry"] += max(tries-1, 0)
	if tries > 0 && r.first != r.begin {
		w.counts["request waited"]++
	}
}

// maxTries limits the tries of the attempt loop.
const maxTries = 5
