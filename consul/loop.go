package consul

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"

	"sluice/observe/wake"
)

// The rate of the queries of one loop. A burst has no delay, so that a change does not
// wait after the previous one. Steady changes cost Consul QueryRate.
const (
	QueryRate  = 5 // a second
	QueryBurst = 10
)

const (
	// retrySpread spreads the queries of the loops after a change of the agent or a recovery.
	retrySpread = 200 * time.Millisecond

	// The delay after an error doubles from firstRetryDelay to maxRetryDelay, ± 50 %.
	// This bounds the delay of a watch after a recovery that no probe has shown to
	// 1.5 s. After 403 and 429 the maximum is maxRefusedRetryDelay: an operator has to
	// correct the token, or Consul requires fewer queries.
	firstRetryDelay      = 100 * time.Millisecond
	maxRetryDelay        = time.Second
	maxRefusedRetryDelay = 10 * time.Second
)

// Loop sends the queries of one goroutine, one after the other, at a limited rate. It keeps the
// index of blocking queries, and decides when and where to retry after an error. It is not safe for
// concurrent use.
type Loop struct {
	// Index is the index of the next query; 0: it does not block. It is 0 after an error: an
	// agent that has lost its state may not reach the index for long.
	Index uint64
	Last  uint64 // index of the last answer, in this loop or before
	// Forgot: Consul may have lost its state since the last Advance, whatever the index is.
	Forgot bool

	client  *Client
	options LoopOptions
	limiter *rate.Limiter

	agent     *agent    // of the last query
	faults    int       // consecutive errors that may be the agent's fault
	faulty    *agent    // of the last of them; nil: none
	elsewhere bool      // they are of more than one agent
	retries   int       // consecutive delays
	failedAt  time.Time // last error; zero: none
	answered  time.Time // the last answer, or the start
}

// LoopOptions configure a loop.
type LoopOptions struct {
	// Remote: another data centre or cluster, or the certificate authority, answers the queries, so
	// that an answer 5xx may not be the agent's fault.
	Remote bool
	// UserDefined: the queries contain a filter, or execute a prepared query, so that
	// errors of one loop may not be the agent's fault.
	UserDefined bool
	// ExcludeFromCapacity: Run does not count the loop for InMode and Capacity.
	// Its queries do not block, or loops that are counted share their answers.
	ExcludeFromCapacity bool
}

// Block makes q block for up to wait, if there is an index and a wait.
func (l *Loop) Block(q *api.QueryOptions, wait time.Duration) {
	if l.Index > 0 && wait > 0 {
		q.WaitIndex, q.WaitTime = l.Index, wait
	}
}

// Advance records the index of an answer. It reports whether Consul may have lost its state since
// the answer before: the index went backwards, or Forgot.
//
// "Reset the index if it goes backwards. [...] Sanity check index is greater than zero
// [...] it is always safe to use an index of 1 to wait for updates."
// https://developer.hashicorp.com/consul/api-docs/features/blocking
func (l *Loop) Advance(index uint64) (forgot bool) {
	forgot, l.Forgot = l.Forgot, false
	switch {
	case index == 0:
		l.Index = 1
		// Such a server may not block either: empty the bucket.
		l.limiter.ReserveN(time.Now(), l.limiter.Burst())
		return forgot
	case index < l.Last:
		l.Last, l.Index = index, 0
		return true
	default:
		l.Last, l.Index = index, index
		return forgot
	}
}

// GetMore is Get for a further query in one call of Run's query. The rate counts it without a wait.
func (l *Loop) GetMore(ctx context.Context, q Query, read func(io.Reader) error) (Answer, error) {
	l.limiter.Reserve()
	return l.Get(ctx, q, read)
}

// Get is [Client.Get]. For 70 s after a failed query, blocking queries bypass the
// agent's views, which may be out of date.
//
// An early answer with an unchanged index says nothing. A server gives it when a snapshot is
// restored during the query: it has the state before that, and any later write raises the index.
// So Get repeats the query without an index. What that answer lacks may be lost: Get sets Forgot,
// also in the other loops, because a view may answer their queries, but never early.
func (l *Loop) Get(ctx context.Context, q Query, read func(io.Reader) error) (Answer, error) {
	answer, err := l.client.get(ctx, q, l.failedAt, read)
	l.agent = answer.agent
	if err == nil && answer.early {
		l.Index, l.Forgot, q.WaitIndex = 0, true, 0
		if !l.options.Remote {
			l.client.agents.recordReset(time.Now())
		}
		return l.GetMore(ctx, q, read)
	}
	if err == nil {
		l.Forgot = l.Forgot || !l.options.Remote && l.client.agents.resetSince(l.answered)
		l.answered = time.Now()
	}
	return answer, err
}

// Run calls query repeatedly, at the rate of the loop, until ctx ends, and returns ctx's error.
// Meanwhile the choice of the agent is kept up to date. After an error Run calls query again
// within 0.2 s if another agent is in use, or the agent has recovered. Otherwise it calls failed
// and waits for 0.1 s, doubled with each further error up to 1 s (10 s after 403 and 429), ± 50 %.
// A recovery, another agent or another token ends the wait.
func (l *Loop) Run(ctx context.Context, query func(context.Context) error, failed func(error)) error {
	defer l.client.KeepProbing()()
	if !l.options.ExcludeFromCapacity {
		defer l.client.gate.countLoop()()
	}
	for {
		changed := l.client.Changed()
		err := l.limiter.Wait(ctx)
		if err == nil {
			err = query(ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			l.faults, l.retries, l.faulty, l.elsewhere = 0, 0, nil, false
			if l.agent != nil {
				l.client.agents.recordAnswer(l.agent)
			}
			continue
		}
		l.Index = 0
		l.failedAt = time.Now()
		delay := l.client.Jitter(retrySpread)
		if !l.retryNow(ctx, err) {
			failed(err)
			delay = l.retryDelay(err)
		}
		if err := l.pause(ctx, delay, changed); err != nil {
			return err
		}
	}
}

// retryNow reports whether to retry after err at once: with another agent, or the same
// one after its recovery.
func (l *Loop) retryNow(ctx context.Context, err error) bool {
	if canceledByAgents(err) {
		return true
	}
	if l.agent == nil || !l.agentMayBeAtFault(err) {
		return false
	}
	l.elsewhere = l.elsewhere || l.faulty != nil && l.faulty != l.agent
	l.faulty = l.agent
	if l.faults++; l.faults >= 2 && !l.options.UserDefined {
		l.client.agents.penalize(l.agent, l.elsewhere)
	}
	return l.client.agents.probeAfterFailure(ctx, l.agent)
}

// agentMayBeAtFault reports whether the agent may be the cause of err, and not the
// query, the token, or another data centre or cluster.
func (l *Loop) agentMayBeAtFault(err error) bool {
	if code := StatusCode(err); code > 0 {
		return code >= http.StatusInternalServerError && !l.options.Remote || code == http.StatusTooManyRequests
	}
	return !Refused(err)
}

// retryDelay returns the delay after err.
func (l *Loop) retryDelay(err error) time.Duration {
	limit, delay := maxRetryDelay, firstRetryDelay
	switch StatusCode(err) {
	case http.StatusForbidden:
		limit = maxRefusedRetryDelay
	case http.StatusTooManyRequests:
		limit, delay = maxRefusedRetryDelay, time.Second
	}
	delay = min(delay<<min(l.retries, 10), limit)
	l.retries++
	return delay/2 + l.client.Jitter(delay)
}

// pause waits for d after an error, or until changed is closed.
func (l *Loop) pause(ctx context.Context, d time.Duration, changed <-chan struct{}) error {
	select {
	case <-time.After(d):
		return nil
	case <-changed:
		l.retries = 0
		return Sleep(ctx, l.client.Jitter(retrySpread))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Sleep waits for d, which may be 0 or less. It returns the error of ctx if this ends before.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 { // most answers are within the rate limit of their bytes
		return ctx.Err()
	}
	return wake.Await(ctx, time.After(d))
}
