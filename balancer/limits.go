package balancer

import (
	"errors"
	"sync/atomic"
	"time"

	"sluice/route/places"
)

// Limits bound what a pool takes on, so that an overloaded service fails fast. 0 is no
// limit.
//
// They are Envoy's circuit breakers (max_requests, max_pending_requests, max_retries).
// Each replica of sluice counts for itself.
type Limits struct {
	// Requests bounds the attempts in flight on all peers together.
	Requests int `key:"requests" default:"0" min:"0" max:"10000000"`
	// PeerRequests bounds the attempts in flight on one peer, whatever its weight.
	// A pick skips a peer at its limit.
	PeerRequests int `key:"requests_per_peer" default:"0" min:"0" max:"10000000"`
	// PeerConnections bounds the connections to one peer, in use and idle. A pick
	// skips a peer whose connections are all in use; see [Pool.AwaitConnection]. With
	// HTTP/1 and TCP each attempt in flight has one connection, and a new one is
	// opened only where none is idle: so the pool counts attempts, not connections.
	PeerConnections int `key:"connections_per_peer" default:"0" min:"0" max:"10000000"`
	// ConnectionWait is how long a request of [Pool.AwaitConnection] should wait. Its caller
	// keeps to it.
	ConnectionWait time.Duration `key:"connection_wait" default:"1s" min:"0s" max:"1m"`
	// Pending bounds the requests that wait; see [Pool.Await] and [Pool.AwaitConnection]. Of a
	// client that has more of them than others, the latest make room for theirs.
	Pending int `key:"pending" default:"1024" min:"0" max:"10000000"`
	// Retries bounds the retries in flight.
	Retries int `key:"retries" default:"0" min:"0" max:"10000000"`
	// Adaptive bounds the attempts that wait for an answer in each tier, by a limit that
	// follows their latency; see gradient. A pick skips a tier at its limit.
	Adaptive bool `key:"adaptive" default:"false"`
	// AdaptiveMin is the lowest limit of Adaptive.
	AdaptiveMin int `key:"adaptive_min" default:"4" min:"2" max:"10000000"`
}

// Limit identifies one of the bounds on what a pool takes on.
type Limit uint8

const (
	// LimitRequests is Limits.Requests.
	LimitRequests Limit = iota
	// LimitPeerRequests is Limits.PeerRequests.
	LimitPeerRequests
	// LimitPeerConnections is Limits.PeerConnections.
	LimitPeerConnections
	// LimitPending is Limits.Pending.
	LimitPending
	// LimitRetries is Limits.Retries.
	LimitRetries
	// LimitRetryBudget is Options.RetryBudget.
	LimitRetryBudget
	// LimitAdaptive is Limits.Adaptive.
	LimitAdaptive

	// NumLimits is the number of limits; they count from 0.
	NumLimits = int(LimitAdaptive) + 1
)

var limitNames = [NumLimits]string{"requests", "peer requests", "peer connections", "pending", "retries", "retry budget", "adaptive"}

func (l Limit) String() string { return limitNames[l] }

// Errors of [Pool.Pick] and [Pool.Await] where a limit was reached.
var (
	// ErrSaturated: Limits.Requests are in flight.
	ErrSaturated = errors.New("too many requests in flight")
	// ErrPeersSaturated: Limits.PeerRequests are in flight on each peer that
	// could be picked.
	ErrPeersSaturated = errors.New("too many requests in flight on every peer")
	// ErrConnectionsSaturated: Limits.PeerConnections are in use at each peer that
	// could be picked, or other requests wait for one of them.
	ErrConnectionsSaturated = errors.New("every connection to every peer is in use")
	// ErrTooManyPending: Limits.Pending requests wait.
	ErrTooManyPending = errors.New("too many requests wait for a peer")
	// ErrTooManyRetries: Limits.Retries are in flight.
	ErrTooManyRetries = errors.New("too many retries in flight")
	// ErrRetryBudget: Options.RetryBudget is used up.
	ErrRetryBudget = errors.New("retry budget used up")
	// ErrOverload: each tier with a peer that could be picked has reached the part of its
	// adaptive limit that the request's criticality may use.
	ErrOverload = errors.New("the service is overloaded")
)

var limitErrors = [NumLimits]error{
	LimitRequests:        ErrSaturated,
	LimitPeerRequests:    ErrPeersSaturated,
	LimitPeerConnections: ErrConnectionsSaturated,
	LimitPending:         ErrTooManyPending,
	LimitRetries:         ErrTooManyRetries,
	LimitRetryBudget:     ErrRetryBudget,
	LimitAdaptive:        ErrOverload,
}

// terms are the limits of a snapshot in the form that picks need.
type terms struct {
	Limits            // 0 replaced by a very large number
	perPeer     int   // attempts in flight on one peer: the lower one of two limits
	perPeerKind Limit // which of the two
	counted     bool  // requests in flight are counted for the whole pool
	byGroup     bool  // and for each group
	witnessed   bool
	marked      bool // either of the two; see Snapshot.mark
	oneLeader   bool // Options.OneLeader
	budget      budgetTerms
	adaptive    *adaptive // nil if Limits.Adaptive is off
}

const noLimit = quiesced - 1 // in terms

func newTerms(o *Options) terms {
	t := terms{Limits: o.Limits, counted: o.Limits.Requests > 0 || o.Policy == PolicyHash, byGroup: o.Policy == PolicyHash && len(o.Groups) > 0, budget: newBudgetTerms(o.RetryBudget)}
	t.witnessed, t.oneLeader = o.NewWitness != nil, o.OneLeader
	t.marked = t.byGroup || t.witnessed
	for _, limit := range []*int{&t.Requests, &t.PeerRequests, &t.PeerConnections, &t.Pending, &t.Retries} {
		if *limit == 0 {
			*limit = noLimit
		}
	}
	if o.Limits.Adaptive {
		t.adaptive = o.adaptive
	}
	t.perPeer, t.perPeerKind = t.PeerRequests, LimitPeerRequests
	if o.Limits.PeerConnections > 0 && t.PeerConnections <= t.PeerRequests {
		t.perPeer, t.perPeerKind = t.PeerConnections, LimitPeerConnections
	}
	return t
}

// heldCounts are the counters of a pool that a token has raised, and lowers at its end.
type heldCounts uint8

const (
	countsRequest heldCounts = 1 << iota
	countsRetry
	countsCopy // with no other but the next
	countsRecord
	countsReserve // of a retry: it is from the reserve
)

// Admission is what a pool has taken on, as far as its limits count it.
type Admission struct {
	// Every request writes budget, and inflight if it is counted: a cache line each.
	budget budget
	_      [128 - 16]byte

	inflight atomic.Int64 // attempts, if terms.counted
	_        [128 - 8]byte

	retries  atomic.Int64 // in flight
	waiting  waiting
	refusals [NumLimits]atomic.Uint64
	adaptive atomic.Pointer[adaptive] // nil until Limits.Adaptive is on; it stays then
	_        [128 - 8 - 24 - NumLimits*8 - 8]byte
	reserve  reserve // of retries, where budget is used up
}

// admit counts an attempt, or returns the error of the pool's limit that forbids it.
func (a *Admission) admit(t *terms, query *Query, retry bool, now int64) (heldCounts, error) {
	var h heldCounts
	if t.counted {
		if a.inflight.Add(1) > int64(t.Requests) {
			a.dismiss(countsRequest)
			return 0, a.refuse(LimitRequests, query.Refused)
		}
		h = countsRequest
	}
	if !retry {
		return h, nil
	}
	h |= countsRetry
	if a.retries.Add(1) > int64(t.Retries) {
		a.dismiss(h)
		return 0, a.refuse(LimitRetries, query.Refused)
	}
	if a.budget.withdraw(t.budget, now) {
		return h, nil
	}
	if a.reserve.withdraw(t.budget, query.Block, now) {
		return h | countsReserve, nil
	}
	a.dismiss(h)
	return 0, a.refuse(LimitRetryBudget, query.Refused)
}

// unadmit undoes admit.
func (a *Admission) unadmit(h heldCounts, query *Query) {
	a.dismiss(h)
	switch {
	case h&countsReserve != 0:
		a.reserve.refund(query.Block)
	case h&countsRetry != 0:
		a.budget.refund()
	}
}

// dismiss undoes the counters of an attempt that ended or was refused.
func (a *Admission) dismiss(h heldCounts) {
	if h&countsRequest != 0 {
		a.inflight.Add(-1)
	}
	if h&countsRetry != 0 {
		a.retries.Add(-1)
	}
}

// Held returns how many requests and retries in flight the pool counts for its limits.
func (a *Admission) Held() (requests, retries int) {
	return int(a.inflight.Load()), int(a.retries.Load())
}

// RetriesLeft returns how many retries the retry budget of the present snapshot allows now.
func (a *Admission) RetriesLeft(s *Snapshot) int { return a.budget.left(s.terms.budget, nanotime()) }

// MayRetry reports whether the retry budget of s allows a retry of a client now.
func (a *Admission) MayRetry(s *Snapshot, client places.Block) bool {
	return a.RetriesLeft(s) > 0 || a.reserve.allows(s.terms.budget, client, nanotime())
}

// refuse counts a refusal by l, unless it is one again, and returns its error.
func (a *Admission) refuse(l Limit, again bool) error {
	if !again {
		a.refusals[l].Add(1)
	}
	return limitErrors[l]
}

// Refusals returns how often each [Limit] stopped an attempt or, for [LimitPending], a
// request that wanted to wait. A request that waits for a connection was stopped first.
func (a *Admission) Refusals() (n [NumLimits]uint64) {
	for l := range n {
		n[l] = a.refusals[l].Load()
	}
	return n
}

// Pending returns how many requests wait.
func (a *Admission) Pending() int { return a.waiting.count() }
