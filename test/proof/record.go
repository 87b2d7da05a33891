package proof

import (
	"slices"
	"sync/atomic"
	"time"

	"sluice/balancer"
)

// record is what a witness knows of a peer. It implements balancer.Record.
type record struct {
	*witness
	peer   *balancer.Peer
	number uint64 // among those of the witness

	standing atomic.Pointer[standing]
	picks    atomic.Int64 // without copies
	dones    atomic.Int64 // of them
	copies   atomic.Int64 // in flight
	copied   atomic.Int64 // copies that are done
	_        [64]byte

	// The pool's mutex guards the fields below.

	whole     bool // all attempts on the peer were seen
	fresh     bool // no set has had it yet
	against   balancer.Reason
	unchecked bool // a required first check has not passed
	awaits    bool // nor has it had another result
	critical  bool // by the last set
	orders    balancer.Orders
	usual     int // last weight above 0; 0: unknown
	left      int64
	timeout   time.Duration // of its drain
}

// standing is whether a peer may get requests, and which. It is immutable.
type standing struct {
	out    bool
	resort bool   // only sluice's own verdicts are against it
	kind   Kind   // Removed or Ineligible, if out
	why    string // the same
	since  int64  // by balancer.Now

	group balancer.GroupID // 0: the pool has no groups
	place place
	empty bool // the tier has no share
}

// place is a tier: the number of the selector, and within it the priority.
type place struct{ tier, priority int }

func (p place) before(o place) bool {
	return p.tier < o.tier || p.tier == o.tier && p.priority < o.priority
}

// settled reports whether what s says has been so for long when a pick began.
func (s *standing) settled(start int64) bool { return start-s.since > int64(Grace) }

func (r *record) Picked(a balancer.Attempt, snapshot *balancer.Snapshot, q balancer.Query) {
	r.proof.slot(r.number, a.Start).Add(1)
	behind := r.changing.Load() // before law and standing: if it is false, they know of the snapshot
	law := r.law.Load()
	if a.Copy {
		r.copies.Add(1)
	} else {
		if open := r.picks.Add(1) - r.dones.Load(); open > law.perPeer && !behind {
			r.report(Limit, r.peer, snapshot, "%d requests in flight at the peer, the limit is %d", open, law.perPeer)
		}
		if a.Counted {
			if open := r.requests.Add(1); open > law.requests && !behind {
				r.report(Limit, r.peer, snapshot, "%d requests in flight at the service, the limit is %d", open, law.requests)
			}
		}
		if a.Retry {
			if open := r.retrying.Add(1); open > law.retries && !behind {
				r.report(Limit, r.peer, snapshot, "%d retries in flight, the limit is %d", open, law.retries)
			}
			r.account.retry(q.Block)
		} else {
			r.account.firsts.Add(1)
		}
		if excess := r.account.audit(a.Start, r.lateRetries); excess > 0 {
			r.report(RetryBudget, nil, snapshot, "%.1f retries more than the budget", excess)
		}
	}
	for _, tried := range q.Tried.Peers() {
		if tried == r.peer {
			r.report(Tried, r.peer, snapshot, "the request has tried the peer")
		}
	}
	if tried := q.Tried.Peers(); len(tried) < cap(tried) && len(tried) < int(q.Tries) {
		r.report(Tried, r.peer, snapshot, "the request has had %d tries, and knows of %d peers", q.Tries, len(tried))
	}
	now := r.standing.Load()
	if behind || !now.settled(a.Start) {
		return
	}
	if now.out {
		if now.resort && q.Resort && r.untried(a, &q, func(*standing) bool { return true }) == nil {
			return
		}
		r.report(now.kind, r.peer, snapshot, "a request began %v after the peer was out of use: %s", time.Duration(a.Start-now.since), now.why)
		return
	}
	if law.orderly && a.Start-law.since > int64(Grace) && !a.Copy {
		if q.Group != 0 && now.group != q.Group {
			r.checkGroup(a, snapshot, &q, law, now)
		}
		if now.empty && q.Group == 0 && q.Own != r.peer && (law.policy != balancer.PolicySticky || q.Hash != r.peer.StickyID()) {
			r.checkTier(a, snapshot, &q, now)
		}
	}
}

// checkGroup: a request leaves its group only for its fallback, and only after all peers of the
// group.
func (r *record) checkGroup(a balancer.Attempt, snapshot *balancer.Snapshot, q *balancer.Query, law *law, now *standing) {
	if !slices.Contains(law.groups, q.Group) {
		return // the whole pool stands for a group that the options lack
	}
	if q.Fallback == 0 || slices.Contains(law.groups, q.Fallback) && now.group != q.Fallback {
		r.report(Group, r.peer, snapshot, "the peer is in group %d, the route has group %d and fallback %d", now.group, q.Group, q.Fallback)
		return
	}
	if other := r.untried(a, q, func(s *standing) bool { return s.group == q.Group }); other != nil {
		r.report(Group, r.peer, snapshot, "the peer is of the fallback, %s of the group has not been tried", other)
	}
}

// checkTier: a request goes to a tier without a share only after all peers of those before.
func (r *record) checkTier(a balancer.Attempt, snapshot *balancer.Snapshot, q *balancer.Query, now *standing) {
	if other := r.untried(a, q, func(s *standing) bool { return s.place.before(now.place) }); other != nil {
		r.report(Tier, r.peer, snapshot, "the peer's tier %d (priority %d) has no share, %s of an earlier tier has not been tried", now.place.tier, now.place.priority, other)
	}
}

// untried returns a peer that the request could have been sent to all along, or nil.
func (w *witness) untried(a balancer.Attempt, q *balancer.Query, wanted func(*standing) bool) *balancer.Peer {
	for _, other := range *w.all.Load() {
		s := other.standing.Load()
		if !s.out && s.settled(a.Start) && wanted(s) && other.peer.Used() && !slices.Contains(q.Tried.Peers(), other.peer) {
			return other.peer
		}
	}
	return nil
}

func (r *record) Done(a balancer.Attempt) {
	if slot := r.proof.slot(r.number, a.Start); slot.Add(-1) < 0 {
		slot.Add(1)
		r.report(TokenKind, r.peer, r.pool.Snapshot(), "a token of the peer was done twice")
		return
	}
	if a.Counted {
		r.requests.Add(-1)
	}
	if a.Retry {
		r.retrying.Add(-1)
	}
	if a.Copy {
		r.copies.Add(-1)
		r.copied.Add(1)
		return
	}
	r.dones.Add(1)
}

// checkEnd: nothing is in flight, and each pick has one outcome.
func (r *record) checkEnd() {
	picks, dones, copies := r.picks.Load(), r.dones.Load(), r.copies.Load()
	if picks != dones || copies != 0 || r.peer.Inflight() != 0 {
		r.report(InFlight, r.peer, r.pool.Snapshot(), "the peer is retired with %d requests and %d copies in flight, it counts %d itself", picks-dones, copies, r.peer.Inflight())
		return
	}
	if sum := int64(r.peer.Requests()); r.whole && sum != picks+r.copied.Load() {
		r.report(Outcomes, r.peer, r.pool.Snapshot(), "%d outcomes of %d picks", sum, picks+r.copied.Load())
	}
}
