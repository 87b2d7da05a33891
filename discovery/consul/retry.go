package consul

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/hashicorp/consul/api"
)

// moveSpread bounds the pause before the first query to another agent, or to
// one that has recovered: the watches do not all come at once.
const moveSpread = 200 * time.Millisecond

// tries are the queries of one goroutine, one after the other: it decides when
// and where to try again after an error.
type tries struct {
	agents *agents
	remote bool // Consul asks elsewhere to answer: an error of its says nothing of the agent
	judged bool // the query has parts that Consul may refuse: its errors say little of the agent

	backoff  backoff
	asked    *agent // by the last query
	failures int    // in a row that speak against asked
}

func (t *tries) succeeded() {
	t.backoff.reset()
	t.failures = 0
}

// elsewhere reports whether another try is worth it at once after err, because
// another agent is asked then, or the same one anew.
func (t *tries) elsewhere(ctx context.Context, err error) bool {
	if errors.Is(err, errMoved) || errors.Is(err, errRecovered) {
		return true
	}
	if t.asked == nil || !t.speakAgainstAgent(err) {
		return false
	}
	if t.failures++; t.failures >= 2 && !t.judged {
		t.agents.complain(t.asked)
	}
	return t.agents.suspect(ctx, t.asked)
}

// speakAgainstAgent reports whether the agent may be the reason for err, and
// not the query, the token, or another data centre or cluster.
func (t *tries) speakAgainstAgent(err error) bool {
	if status := (*statusError)(nil); errors.As(err, &status) {
		return status.code >= http.StatusInternalServerError && !t.remote || status.code == http.StatusTooManyRequests
	}
	return !errors.Is(err, errFiltered)
}

// denied reports whether err is an answer 4xx: Consul, or a proxy in front of it,
// does not want the question, or so many of them.
func denied(err error) bool {
	status := (*statusError)(nil)
	return errors.As(err, &status) && status.code < http.StatusInternalServerError
}

// pause waits for d before the next try after an error, or until there is a
// reason not to wait.
func (t *tries) pause(ctx context.Context, d time.Duration, again <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-again:
		t.backoff.reset()
		return sleep(ctx, t.agents.upTo(moveSpread))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// firstPatience is how long the answer to a query that does not block is waited
// for until it is asked again, then for twice as long, and so on. The agent may
// have handed it to a server that does not answer, or does not know the next
// leader yet, and holds it for seconds; another one is answered at once.
const firstPatience = time.Second

// insist has send send q until there is an answer or an error, or ctx ends; once
// where watches are many, since the agent goes on with what is given up.
func (a *agent) insist(ctx context.Context, q api.QueryOptions, send func(context.Context) error) error {
	if q.WaitIndex > 0 || !a.meter.gate.roomy() {
		return send(ctx)
	}
	for patience := firstPatience; ; patience *= 2 {
		limited, cancel := context.WithTimeout(ctx, patience)
		err := send(limited)
		late := limited.Err() != nil
		cancel()
		if err == nil || !late || ctx.Err() != nil {
			return err
		}
	}
}

// backoff spaces the attempts after errors.
type backoff struct {
	failures int
}

const (
	firstRetry = 100 * time.Millisecond
	// longestRetry bounds how long a watch stays behind once Consul is back and no
	// probe has shown it: to 1.5 s, since half of it may be added.
	longestRetry = time.Second
	// longestRefusedRetry is for what only an operator can end (a token without
	// permissions), and for a Consul that asks for fewer queries.
	longestRefusedRetry = 10 * time.Second
)

// next returns how long to wait after err: twice as long as the last time, up
// to a limit, give or take a half, by upTo.
func (b *backoff) next(err error, upTo func(time.Duration) time.Duration) time.Duration {
	limit, delay := longestRetry, firstRetry
	if refused := (*statusError)(nil); errors.As(err, &refused) {
		switch refused.code {
		case http.StatusForbidden:
			limit = longestRefusedRetry
		case http.StatusTooManyRequests:
			limit, delay = longestRefusedRetry, time.Second
		}
	}
	delay = min(delay<<min(b.failures, 10), limit)
	b.failures++
	return delay/2 + upTo(delay)
}

func (b *backoff) reset() { b.failures = 0 }
