package consul

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
)

// minTTL is the minimum interval between executions.
const minTTL = time.Second

// execute executes the query once, reports the result, and waits until the next
// execution. It follows the rules of poll, except that there is no index.
func (w *watch) execute(ctx context.Context) error {
	o := w.options
	o.Poll = cmp.Or(w.every, o.Poll) // the oldest that it may be in the agent's cache
	answer, err := w.query(ctx, &o, api.QueryOptions{})
	if err != nil {
		return w.named(err)
	}
	if err := w.verify(answer); err != nil {
		return err
	}
	if answer, _, err = w.confirmed(ctx, answer, false); err != nil {
		return fmt.Errorf("confirm the answer: %w", w.named(err))
	}
	w.accept(answer, false)

	w.every = w.options.Poll
	if answer.ttl > 0 {
		w.every = max(answer.ttl, minTTL)
	}
	return consul.Sleep(ctx, w.Guard.Within(time.Now(), w.every-w.every/10+w.client.Jitter(w.every/5)))
}

// named adds the name of the prepared query to an error 404.
func (w *watch) named(err error) error {
	if consul.StatusCode(err) == http.StatusNotFound {
		return fmt.Errorf("there is no prepared query %q, or the token lacks query:read for it: %w", w.options.PreparedQuery, err)
	}
	return err
}
