package simulation

import (
	"slices"
	"time"

	"sluice/balancer"
)

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
	s.checkTierOfTry(r, p)
	if named := r.named(); named != nil && named != real && s.moved != now && s.configure != now && r.tries == 1 &&
		slices.Contains(s.pool.Snapshot().Eligible, named) && s.options.Limits.PeerRequests == 0 {
		w.violate("request %d: on %s, though it belongs to %s", r.number, p, s.peers[named])
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
	if i, listed := latest.set[real.ID]; latest.at != now && (!listed || !s.wanted(i) && s.configure != now) {
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
