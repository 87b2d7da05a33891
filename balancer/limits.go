package balancer

import "errors"

// Limits bound what a pool takes on, so that a service that is too slow or
// overloaded fails fast instead of gathering requests. 0 means no limit.
//
// They are Envoy's circuit breakers (max_requests, max_pending_requests,
// max_retries). Each sluice counts for itself.
type Limits struct {
	// Requests is how many attempts may be in flight, on all peers together.
	Requests int
	// PeerRequests is how many attempts may be in flight on one peer, whatever
	// its weight. A peer with so many is passed over. Where each request takes a
	// connection for itself, as in HTTP/1 and TCP, this is also how many
	// connections to a peer are in use at most.
	PeerRequests int
	// Pending is how many requests may wait for a peer; see [Pool.Await].
	Pending int
	// Retries is how many attempts beyond the first of a request may be in
	// flight.
	Retries int
}

func (l Limits) check() error {
	if min(l.Requests, l.PeerRequests, l.Pending, l.Retries) < 0 {
		return errors.New("negative limit")
	}
	return nil
}

// Limit is one of the bounds on what a pool takes on.
type Limit uint8

const (
	// LimitRequests is Limits.Requests.
	LimitRequests Limit = iota
	// LimitPeerRequests is Limits.PeerRequests.
	LimitPeerRequests
	// LimitPending is Limits.Pending.
	LimitPending
	// LimitRetries is Limits.Retries.
	LimitRetries
	// LimitRetryBudget is Options.RetryBudget.
	LimitRetryBudget

	// NumLimits is the number of limits; they count from 0.
	NumLimits = int(LimitRetryBudget) + 1
)

var limitNames = [NumLimits]string{"requests", "peer requests", "pending", "retries", "retry budget"}

// String returns the limit in lower-case words.
func (l Limit) String() string {
	if int(l) < len(limitNames) {
		return limitNames[l]
	}
	return "unknown"
}

// Errors of [Pool.Pick] and [Pool.Await] where a limit was reached.
var (
	// ErrSaturated: Limits.Requests are in flight.
	ErrSaturated = errors.New("too many requests in flight")
	// ErrPeersSaturated: Limits.PeerRequests are in flight on each peer that
	// could be picked.
	ErrPeersSaturated = errors.New("too many requests in flight on every peer")
	// ErrTooManyPending: Limits.Pending requests wait for a peer.
	ErrTooManyPending = errors.New("too many requests wait for a peer")
	// ErrTooManyRetries: Limits.Retries are in flight.
	ErrTooManyRetries = errors.New("too many retries in flight")
	// ErrRetryBudget: Options.RetryBudget is used up.
	ErrRetryBudget = errors.New("retry budget used up")
)

var limitErrors = [NumLimits]error{
	LimitRequests:     ErrSaturated,
	LimitPeerRequests: ErrPeersSaturated,
	LimitPending:      ErrTooManyPending,
	LimitRetries:      ErrTooManyRetries,
	LimitRetryBudget:  ErrRetryBudget,
}

// terms are the limits of a snapshot in the form in which picks need them.
type terms struct {
	Limits       // none is 0
	counted bool // requests in flight are counted for the whole pool
	budget  budgetTerms
}

func newTerms(o *Options) terms {
	t := terms{Limits: o.Limits, counted: o.Limits.Requests > 0 || o.Policy == PolicyHash, budget: newBudgetTerms(o.RetryBudget)}
	for _, limit := range []*int{&t.Requests, &t.PeerRequests, &t.Pending, &t.Retries} {
		if *limit == 0 {
			*limit = quiesced - 1
		}
	}
	return t
}

// holds are the counters of a pool that a token has added itself to.
type holds uint8

const (
	holdsRequest holds = 1 << iota
	holdsRetry
)

// admit takes in an attempt, a retry or not, unless a limit of the whole pool
// forbids it.
func (p *Pool) admit(t *terms, retry bool, now int64) (holds, error) {
	var h holds
	if t.counted {
		if p.inflight.Add(1) > int64(t.Requests) {
			p.dismiss(holdsRequest)
			return 0, p.refuse(LimitRequests)
		}
		h = holdsRequest
	}
	if !retry {
		return h, nil
	}
	h |= holdsRetry
	if p.retries.Add(1) > int64(t.Retries) {
		p.dismiss(h)
		return 0, p.refuse(LimitRetries)
	}
	if !p.budget.withdraw(t.budget, now) {
		p.dismiss(h)
		return 0, p.refuse(LimitRetryBudget)
	}
	return h, nil
}

// unadmit undoes admit.
func (p *Pool) unadmit(h holds) {
	p.dismiss(h)
	if h&holdsRetry != 0 {
		p.budget.refund()
	}
}

// dismiss takes an attempt that ended, or was refused, out of the counters.
func (p *Pool) dismiss(h holds) {
	if h&holdsRequest != 0 {
		p.inflight.Add(-1)
	}
	if h&holdsRetry != 0 {
		p.retries.Add(-1)
	}
}

// refuse counts a request that l stopped and returns the error for it.
func (p *Pool) refuse(l Limit) error {
	p.refusals[l].Add(1)
	return limitErrors[l]
}

// Refusals returns how often each [Limit] stopped an attempt or, if it is
// [LimitPending], a request that would have waited.
func (p *Pool) Refusals() [NumLimits]uint64 {
	var n [NumLimits]uint64
	for l := range n {
		n[l] = p.refusals[l].Load()
	}
	return n
}
