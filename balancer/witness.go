package balancer

import "sluice/discovery"

// Witness learns what a pool is told, and sees what the pool does with it: package test/proof
// compares the two. The pool calls it with its mutex held and when the snapshot that obeys is
// stored, except for Joined: no method may block or call the pool, but for its snapshot. A witness
// changes nothing of what a request gets. Only tests have one.
type Witness interface {
	// Changing: one of the next four follows. Until it returns, picks may follow what the witness
	// has yet to learn.
	Changing()
	// Configured: the pool has these options from now on.
	Configured(o *Options)
	// Applied: the pool has got this set, at began.
	Applied(set []discovery.Instance, began int64)
	// Judged is Pool.SetReasons.
	Judged(r Reason, verdicts []Verdict)
	// Ordered is Pool.SetOrders.
	Ordered(of func(discovery.Instance) Orders)
	// Joined returns what sees the attempts on a peer. It comes before a snapshot has the peer.
	// before: the peer was in use under another name (Pool.ApplyMoved). against may have
	// ReasonActive, by that or by Options.FailedBefore.
	Joined(p *Peer, before bool, against Reason) Record
	// Retired: the transport of a peer is closed. cut: with requests in flight.
	Retired(p *Peer, cut bool)
	// Closed: the pool is closed and has drained.
	Closed()
}

// Record sees the attempts on one peer. It is safe for concurrent use, and is called without a
// lock.
type Record interface {
	// Picked comes after the pick of q from s.
	Picked(a Attempt, s *Snapshot, q Query)
	// Done comes when the outcome is counted, and before the peer is released. The attempt was
	// Picked, once.
	Done(a Attempt)
}

// Attempt is what a Record learns of a token.
type Attempt struct {
	Start   int64 // time of the pick, by the clock of Now
	Copy    bool  // see Pool.PickMirror
	Retry   bool
	Counted bool // for Limits.Requests
}

// Now returns the time that pools use: nanoseconds of a monotonic clock.
func Now() int64 { return nanotime() }

func (h heldCounts) attempt(start int64) Attempt {
	return Attempt{Start: start, Copy: h&countsCopy != 0, Retry: h&countsRetry != 0, Counted: h&countsRequest != 0}
}

// mark adds to the token of a pick from s what few pools have.
func (s *Snapshot) mark(t Token, q *Query) Token {
	if s.terms.byGroup && t.held&countsCopy == 0 {
		if t.group = t.Peer.Group(); t.group != nil {
			t.group.inflight.Add(1)
		}
	}
	if s.terms.witnessed {
		var query Query
		if q != nil {
			query = *q
		}
		t.Peer.record.Picked(t.held.attempt(t.start), s, query)
		t.held |= countsRecord
	}
	return t
}
