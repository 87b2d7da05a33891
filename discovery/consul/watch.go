package consul

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
	"sluice/discovery"
	"sluice/discovery/consul/overview"
)

// source watches one service, or the result of a prepared query.
type source struct {
	*Sources
	options ServiceOptions
}

// watch is one run of a source. Only its goroutine uses it.
type watch struct {
	*source
	*discovery.Watcher
	loop *consul.Loop

	filtered bool // ACLs filtered the last accepted answer
	accepted bool // an answer was accepted in this run

	changed  time.Time // when the index of an answer last differed from the one before
	differed time.Time // when the instances last did
	// registered has each Instance.Registered of the last accepted answer, as Consul has it.
	registered map[discovery.Key]uint64

	warned map[Skipped]bool // skipped entries in the log

	every time.Duration // interval of a prepared query; 0: unknown

	subscriber *overview.Subscriber // while the watch is on an overview
}

// Run implements discovery.Source.
func (s *source) Run(ctx context.Context, before discovery.WatchState, report func(discovery.Report)) error {
	if s.options.Service == "" && s.options.PreparedQuery == "" {
		return errors.New("consul: the service has no name")
	}
	w := s.newWatch(before, report)
	defer w.unsubscribe()
	if s.options.PreparedQuery != "" {
		return w.run(ctx, w.execute)
	}
	return w.run(ctx, w.poll)
}

// newWatch returns a watch that continues with the state before.
func (s *source) newWatch(before discovery.WatchState, report func(discovery.Report)) *watch {
	watcher := discovery.NewWatcher(discovery.Guard{Probation: s.options.Probation, PassingOnly: s.options.PreparedQuery != ""}, before, report)
	w := &watch{
		source:   s,
		Watcher:  watcher,
		filtered: watcher.Memory().Filtered,
		loop: s.client.NewLoop(consul.LoopOptions{
			Remote:              s.options.Datacenter != "" || s.options.Peer != "",
			UserDefined:         s.options.Filter != "" || s.options.PreparedQuery != "",
			ExcludeFromCapacity: s.options.PreparedQuery != "",
		}),
	}
	w.loop.Last = watcher.Memory().Index
	return w
}

// run calls poll until ctx ends.
func (w *watch) run(ctx context.Context, poll func(context.Context) error) error {
	return w.loop.Run(ctx, func(ctx context.Context) error {
		err := poll(ctx)
		if err != nil && ctx.Err() == nil {
			w.Guard.Failed(time.Now())
		}
		return err
	}, func(err error) { w.Failed(discovery.Refusal(err, consul.Refused(err))) })
}

// poll queries once and reports the set. An error means that the answer is not used.
func (w *watch) poll(ctx context.Context) error {
	answer, err := w.next(ctx)
	if err != nil {
		return err
	}
	if err := w.verify(answer); err != nil {
		return err
	}
	before, reset := w.loop.Last, w.loop.Forgot
	if w.accepted && answer.Index != before {
		w.changed = time.Now()
	}
	forgot := w.loop.Advance(answer.Index) || w.older(answer)
	counts, judged, err := w.confirmed(ctx, answer, forgot)
	loses := err == nil && judged.Loses
	if loses {
		_, err = w.deselect(ctx, counts, loses)
		judged = w.Guard.Judge(time.Now(), counts.Instances, forgot) // without what is deselected
	}
	if err != nil {
		w.loop.Last, w.loop.Forgot = before, reset // a loss of state is not confirmed
		return fmt.Errorf("confirm the answer: %w", err)
	}
	if w.accepted && judged.Differs {
		w.differed = time.Now()
	}
	// A server that lags has not lost its state.
	reset = reset && len(judged.Absent) > 0
	w.accept(counts, forgot && (counts.Index < before || reset || w.older(counts)))
	if !loses { // after an error they stay on probation, until a later answer
		if found, _ := w.deselect(ctx, counts, loses); found {
			w.accept(counts, false)
		}
	}
	if w.subscriber != nil {
		w.subscriber.Answered(counts.nodes, counts.services, w.differed)
	}
	return nil
}

// older reports whether an instance was registered before the one in the last accepted answer:
// then Consul is back at an earlier state, whatever its index is.
func (w *watch) older(answer Answer) bool {
	return slices.ContainsFunc(answer.Instances, func(i discovery.Instance) bool { return i.Registered < w.registered[i.Key()] })
}

// query queries the instances that o selects.
func (w *watch) query(ctx context.Context, o *ServiceOptions, q api.QueryOptions) (Answer, error) {
	return query(ctx, w.loop.Get, o, q)
}

// verify returns why an answer must not be used, or nil.
func (w *watch) verify(answer Answer) error {
	if err := w.client.Doubt(answer.Answer); err != nil || !answer.FilteredByACL {
		return err
	}
	// An instance that ACLs hide is not gone. But if they have always hidden it, the
	// visible instances are the set.
	err := fmt.Errorf("%w: the token lacks %s", consul.ErrFiltered, permissions(&w.options))
	if len(answer.Instances) == 0 {
		return err
	}
	if w.filtered || len(w.Guard.Absent(answer.Instances)) == 0 {
		return nil
	}
	return err
}

// accept reports an answer. For forgot see discovery.Guard.Accept.
func (w *watch) accept(answer Answer, forgot bool) {
	w.warnACLs(answer)
	w.accepted = true
	w.registered = make(map[discovery.Key]uint64, len(answer.Instances))
	for _, i := range answer.Instances {
		w.registered[i.Key()] = i.Registered
	}
	if !answer.Streaming {
		w.filtered = answer.FilteredByACL
	}
	w.warnSkipped(answer.Skipped)
	w.Accept(discovery.Report{Set: answer.Instances, Endpoint: answer.URL, Index: answer.Index, Reset: forgot, Invalid: invalid(answer.Skipped)}, discovery.Memory{Index: w.loop.Last, Filtered: w.filtered})
}

// invalid returns skipped entries for a report.
func invalid(skipped []Skipped) []discovery.Invalid {
	var list []discovery.Invalid
	for _, s := range skipped {
		list = append(list, discovery.Invalid{Key: consul.OneLine(s.ID), Reason: s.Reason})
	}
	discovery.SortInvalid(list)
	return list
}

// warnACLs logs when ACLs begin to hide instances, which Consul only reports with a token.
func (w *watch) warnACLs(answer Answer) {
	switch {
	case answer.FilteredByACL && !(w.accepted && w.filtered):
		w.log.Warn().Str("consul_service", w.options.Service).
			Str("needs", permissions(&w.options)).Msg("consul: ACLs hide instances from the token")
	case answer.Listed == 0 && answer.DefaultDeny && answer.Anonymous && !w.accepted:
		w.log.Warn().Str("consul_service", w.options.Service).
			Str("needs", permissions(&w.options)).Str("default_policy", "deny").Msg("consul: no instances, and no token is set: ACLs may hide them")
	}
}

// maxSkippedLines limits the lines about the skipped entries of an answer.
const maxSkippedLines = 20

// warnSkipped logs new skipped entries.
func (w *watch) warnSkipped(skipped []Skipped) {
	warned := make(map[Skipped]bool, len(skipped))
	lines := 0
	for _, s := range skipped {
		if !w.warned[s] && !warned[s] {
			if lines++; lines <= maxSkippedLines {
				w.log.Warn().Str("consul_service", w.options.Service).Str("id", consul.OneLine(s.ID)).Str("node", consul.OneLine(s.Node)).
					Str("reason", s.Reason).Msg("instance skipped")
			}
		}
		warned[s] = true
	}
	if more := lines - maxSkippedLines; more > 0 {
		w.log.Warn().Str("consul_service", w.options.Service).Int("more", more).Msg("instances skipped")
	}
	w.warned = warned
}
