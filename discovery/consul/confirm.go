package consul

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
	"sluice/discovery"
)

// maxFilterIDs is the maximum number of missing instances that are queried by id. Each
// id in a filter costs Consul 2 to 5 µs per instance of the service; an instance in an
// answer costs 20 to 40 µs.
const maxFilterIDs = 4

// confirmed returns answer, or the leader's instead, with what the guard says of it. The leader is
// asked if answer removes instances, if a server that may lag gave an older one, and in the mode
// "consistent", which the streaming backend ignores. forgot says that Consul may have lost its
// state.
func (w *watch) confirmed(ctx context.Context, answer Answer, forgot bool) (_ Answer, judged discovery.Judgement, err error) {
	judged = w.Guard.Judge(time.Now(), answer.Instances, forgot)
	consistent := w.options.Consistency == ConsistencyConsistent
	switch {
	case consistent && !answer.Streaming:
		return answer, judged, nil
	case consistent || judged.Loses || forgot && w.options.Consistency == ConsistencyStale:
	case len(judged.Absent) == 0:
		if judged.Adds {
			w.unhide(ctx, answer)
		}
		return answer, judged, nil
	default:
		if gone, err := w.confirmGone(ctx, judged.Absent); gone || err != nil {
			return answer, judged, err
		}
	}
	if answer, err = w.queryLeader(ctx, &w.options); err == nil {
		err = w.verify(answer)
	}
	if err != nil {
		return answer, judged, err
	}
	w.loop.Advance(answer.Index)
	return answer, w.Guard.Judge(time.Now(), answer.Instances, forgot), nil
}

// unhide asks the leader whether ACLs still hide instances, as a view, which does not tell, has new
// ones: else those would go at once when ACLs hide them again. Without an answer nothing changes.
func (w *watch) unhide(ctx context.Context, answer Answer) {
	if !w.filtered || !answer.Streaming {
		return
	}
	if all, err := w.queryLeader(ctx, &w.options); err == nil && w.client.Doubt(all.Answer) == nil {
		w.filtered = all.FilteredByACL
	}
}

// deselect removes from the guard's instances those that Consul still has, or has again, outside
// of the selected tags or the filter, if answer is a loss or lacks one on probation. found reports
// whether there are any. Example: an operator moved a tag. An error: the loss is not confirmed.
func (w *watch) deselect(ctx context.Context, answer Answer, loses bool) (found bool, err error) {
	if w.options.Service == "" || len(w.options.Tags) == 0 && w.options.Filter == "" {
		return false, nil
	}
	unlisted, lost := w.Guard.Remembered(answer.Instances)
	if !loses && !lost {
		return false, nil
	}
	o := w.options
	o.Tags, o.Filter = nil, ""
	all, err := w.queryLeader(ctx, &o)
	if err == nil {
		err = w.verify(all)
	}
	there := among(unlisted, all.Instances, true)
	if err == nil && len(there) > 0 { // one may have been registered since, with the tags
		var again Answer
		if again, err = w.queryLeader(ctx, &w.options); err == nil {
			err = w.verify(again)
		}
		there = among(there, again.Instances, false)
	}
	if err != nil {
		return false, err
	}
	w.Guard.Deselect(there)
	return len(there) > 0, nil
}

// among returns the instances that set has, or those that it has not.
func among(instances, set []discovery.Instance, has bool) []discovery.Instance {
	keys := make(map[discovery.Key]bool, len(set))
	for _, i := range set {
		keys[i.Key()] = true
	}
	return slices.DeleteFunc(slices.Clone(instances), func(i discovery.Instance) bool { return keys[i.Key()] != has })
}

// confirmGone reports whether the leader has none of the missing instances, with a
// query for them only. Consul marks its answer if ACLs hide one of them, whether it
// applies ACLs before the filter or after it.
func (w *watch) confirmGone(ctx context.Context, missing []discovery.Instance) (bool, error) {
	filter, ok := idFilter(w.options.Filter, missing)
	// With w.filtered every answer is filtered; a prepared query has no filter.
	if !ok || w.filtered || w.options.PreparedQuery != "" {
		return false, nil
	}
	o := w.options
	o.Filter = filter
	answer, err := w.queryLeader(ctx, &o)
	switch {
	case consul.Denied(err): // without the filter it may be answered
		return false, nil
	case err != nil:
		return false, err
	case !answer.KnownLeader || answer.FilteredByACL:
		return false, nil
	}
	return len(among(missing, answer.Instances, true)) == 0, nil
}

// idFilter returns filter, limited to the ids of instances. It is not ok if there are
// too many, or an id cannot be written in an expression.
func idFilter(filter string, instances []discovery.Instance) (expression string, ok bool) {
	if len(instances) > maxFilterIDs {
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
	return both(filter, strings.Join(ids, " or ")), true
}

// queryLeader queries, without blocking, in the mode "consistent": the leader confirms
// that it still is the leader. It takes from the token bucket without waiting for it.
func (w *watch) queryLeader(ctx context.Context, o *ServiceOptions) (Answer, error) {
	return query(ctx, w.loop.GetMore, o, api.QueryOptions{RequireConsistent: true})
}
