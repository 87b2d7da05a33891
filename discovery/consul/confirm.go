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

// fewGone is how many missing instances are asked for by their ids. Each id in a
// filter costs Consul 2 to 5 µs for each instance of the service, and what it does
// not list 20 to 40 µs.
const fewGone = 4

// confirmed returns answer, or what the leader answers instead: if answer takes
// something away, or in the mode "consistent", which the streaming backend takes no
// notice of. Forgot says that the index went backwards.
func (w *watch) confirmed(ctx context.Context, answer Answer, forgot bool) (Answer, error) {
	absent, loses := w.guard.Absent(answer.Instances), w.guard.Loses(time.Now(), answer.Instances, forgot)
	consistent := w.options.Consistency == ConsistencyConsistent
	switch {
	case consistent && !answer.Streaming:
		return answer, w.deselect(ctx, answer, loses)
	case consistent || loses:
	case len(absent) == 0:
		return answer, nil
	default:
		if gone, err := w.gone(ctx, absent); gone || err != nil {
			return answer, err
		}
	}
	answer, err := w.askLeader(ctx, &w.options)
	if err != nil {
		return answer, err
	}
	if err := w.trust(answer); err != nil {
		return answer, err
	}
	w.advance(answer.Index)
	return answer, w.deselect(ctx, answer, w.guard.Loses(time.Now(), answer.Instances, forgot))
}

// deselect has the guard forget instances that Consul still has, but without the
// tags that are asked for, or not as the filter wants them, if answer is a loss: an
// operator moved a tag, say.
func (w *watch) deselect(ctx context.Context, answer Answer, loses bool) error {
	if !loses || w.options.Service == "" || len(w.options.Tags) == 0 && w.options.Filter == "" {
		return nil
	}
	o := w.options
	o.Tags, o.Filter = nil, ""
	all, err := w.askLeader(ctx, &o)
	if err != nil {
		return err
	}
	if err := w.trust(all); err != nil {
		return err
	}
	selected := make(map[discovery.Key]bool, len(answer.Instances))
	for _, i := range answer.Instances {
		selected[i.Key()] = true
	}
	w.guard.Deselect(slices.DeleteFunc(all.Instances, func(i discovery.Instance) bool {
		return selected[i.Key()]
	}))
	return nil
}

// gone reports whether the leader knows none of the missing instances, as far as
// a query for them alone can tell. Its answer is marked if ACLs may hide one of
// them: Consul marks what ACLs filter, before the filter expression or after it.
func (w *watch) gone(ctx context.Context, missing []discovery.Instance) (bool, error) {
	filter, ok := idFilter(w.options.Filter, missing)
	if !ok || w.filtered || w.options.PreparedQuery != "" { // which marks every answer, or takes no filter
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
	return !slices.ContainsFunc(missing, func(i discovery.Instance) bool {
		return slices.ContainsFunc(answer.Instances, func(there discovery.Instance) bool {
			return there.Key() == i.Key()
		})
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
