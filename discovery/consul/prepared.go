package consul

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/discovery"
)

// prepared executes a prepared query again and again.
type prepared struct{ source }

// minTTL bounds how often a prepared query is executed whose TTL is shorter.
const minTTL = time.Second

// Run implements discovery.Source.
func (s *prepared) Run(ctx context.Context, report *discovery.Watch) error {
	w := s.newWatch(report)
	w.guard.PassingOnly = true
	return w.run(ctx, w.execute)
}

// execute executes the query once, reports what counts, and waits until it is
// time to do so again. The rules are those of poll, except that there is no index.
func (w *watch) execute(ctx context.Context) error {
	answer, err := w.result(ctx)
	if err != nil {
		return w.named(err)
	}
	if !w.began {
		w.inherit(answer)
	}
	if err := w.trust(answer); err != nil {
		return err
	}
	if answer, err = w.confirmed(ctx, answer, false); err != nil {
		return fmt.Errorf("confirm the answer: %w", w.named(err))
	}
	w.accept(answer, false)
	w.backoff.reset()

	w.every = w.options.Poll
	if answer.ttl > 0 {
		w.every = max(answer.ttl, minTTL)
	}
	return sleep(ctx, w.untilExpiry(time.Now(), w.every-w.every/10+w.agents.upTo(w.every/5)))
}

// result executes the query, or takes a result from the agent's cache that is no
// older than the time between two executions.
func (w *watch) result(ctx context.Context) (Answer, error) {
	if err := w.client.gate.enter(ctx, false); err != nil {
		return Answer{}, err
	}
	defer w.client.gate.leave(false)
	o := w.options
	o.Poll = cmp.Or(w.every, o.Poll)
	return w.queryAs(ctx, &o, api.QueryOptions{})
}

// named says what an answer 404 is about.
func (w *watch) named(err error) error {
	if status := (*statusError)(nil); errors.As(err, &status) && status.code == http.StatusNotFound {
		return fmt.Errorf("there is no prepared query %q, or the token lacks query:read for it: %w", w.options.PreparedQuery, err)
	}
	return err
}
