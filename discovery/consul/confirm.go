package consul

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/discovery"
)

// settleTime passes, shortly after an error, before a loss is confirmed.
const settleTime = 250 * time.Millisecond

// fewGone is how many missing instances are asked for by their ids. Each id in a
// filter costs Consul 2 to 5 µs for each instance of the service, and what it does
// not list 20 to 40 µs.
const fewGone = 4

// countsAsItIs reports whether an answer takes away so little, and says so much
// about itself, that it need not be confirmed. That may take a query for what it
// lacks.
func (w *watch) countsAsItIs(ctx context.Context, answer Answer, forgot bool) (bool, error) {
	switch w.options.Consistency {
	case ConsistencyStale: // the answer may be older than the one before
		if forgot {
			return false, nil
		}
	case ConsistencyConsistent:
		if answer.Streaming { // which takes no notice of the mode
			return false, nil
		}
	}
	loss := w.loss(answer)
	if loss.empties() || w.guard.unsettled(time.Now(), loss) || len(w.guard.doubtful(time.Now(), loss, forgot)) > 0 {
		return false, nil
	}
	if !answer.Streaming || len(loss.absent) == 0 {
		return true, nil
	}
	// A streaming answer does not tell whether ACLs filtered it.
	return w.gone(ctx, loss.absent)
}

// loss is what answer would take out of service.
func (w *watch) loss(answer Answer) loss { return w.guard.loss(answer.Instances, answer.unchecked) }

// blind reports whether an empty answer may be one that ACLs emptied: Consul
// does not tell a client without a token that it filtered its answer.
func (w *watch) blind(answer Answer) bool {
	return answer.Listed == 0 && answer.DefaultDeny && answer.anonymous
}

// gone reports whether the leader knows none of the missing instances, as far as
// a query for them alone can tell. Its answer is marked if ACLs may hide one of
// them: Consul marks what ACLs filter, before the filter expression or after it.
func (w *watch) gone(ctx context.Context, missing []discovery.Instance) (bool, error) {
	filter, ok := idFilter(w.options.Filter, missing)
	if !ok || w.filtered { // which marks every answer
		return false, nil
	}
	o := w.options
	o.Filter = filter
	answer, err := w.askLeader(ctx, &o)
	switch {
	case denied(err): // without the filter it may be answered
		return false, nil
	case err != nil:
		return false, err
	case !answer.KnownLeader || answer.FilteredByACL:
		return false, nil
	}
	there := byProcess(answer.Instances)
	return !slices.ContainsFunc(missing, func(i discovery.Instance) bool {
		_, ok := there[processOf(i)]
		return ok
	}), nil
}

// idFilter returns a filter expression for those of instances that filter lets
// through, unless there are many, or one has an id that cannot be written in an
// expression.
func idFilter(filter string, instances []discovery.Instance) (expression string, ok bool) {
	if len(instances) > fewGone {
		return "", false
	}
	var ids []string
	for _, i := range instances {
		quoted := strconv.Quote(i.ID)
		if quoted != `"`+i.ID+`"` { // bexpr's grammar has no escapes
			return "", false
		}
		ids = append(ids, "Service.ID == "+quoted)
	}
	expression = strings.Join(ids, " or ")
	if filter != "" {
		expression = "(" + filter + ") and (" + expression + ")"
	}
	return expression, true
}

// confirm asks again for what the leader knows.
func (w *watch) confirm(ctx context.Context) (Answer, error) {
	answer, err := w.askLeader(ctx, &w.options)
	if err != nil {
		return Answer{}, err
	}
	return answer, w.trust(answer)
}

// askLeader asks, without blocking, for what the leader knows after it made sure
// that it still is the leader. It does not wait for the token bucket, but takes
// from it.
func (w *watch) askLeader(ctx context.Context, o *ServiceOptions) (Answer, error) {
	w.limiter.Reserve()
	if err := w.client.gate.enter(ctx, false); err != nil {
		return Answer{}, err
	}
	defer w.client.gate.leave(false)
	return w.queryAs(ctx, o, api.QueryOptions{RequireConsistent: true})
}
