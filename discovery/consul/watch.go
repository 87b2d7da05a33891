package consul

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"

	"sluice/discovery"
)

// The rate of a watch's queries: a burst passes at once, so that a change never
// waits behind the one before it; a service that changes all the time costs
// Consul queriesPerSecond.
const (
	queriesPerSecond = 5
	queryBurst       = 10
)

// source watches one service.
type source struct {
	client  *Client
	options ServiceOptions
	rate    rate.Limit
}

// watch is one run of a source. Its goroutine is the only one to use it.
type watch struct {
	*source
	report  reporter
	limiter *rate.Limiter
	guard   guard
	tries

	index    uint64 // for the next query; 0: it does not block
	last     uint64 // of the last answer
	unlisted int    // instances that were kept beyond their hold by the last answer that counted
	filtered bool   // the last answer that counted was filtered by ACLs
	began    bool   // an answer has counted

	warned map[Skipped]bool // entries that were logged as skipped

	every time.Duration // between two executions of a prepared query; 0: there was none

	rider   *rider // while the watch has no blocking query of its own
	excused bool   // there is no overview to ride on
}

// reporter is where a watch reports: to a discovery.Watch, whose methods these
// are, or to one of several data centres.
type reporter interface {
	Instances() ([]discovery.Instance, bool)
	Fresh() bool
	Restore()
	From(endpoint string)
	Emit(set []discovery.Instance)
	Hold(held, unlisted int)
	Succeeded(index uint64)
	Failed(err error)
}

// Run implements discovery.Source.
func (s *source) Run(ctx context.Context, report *discovery.Watch) error {
	return s.run(ctx, report)
}

func (s *source) run(ctx context.Context, report reporter) error {
	if s.options.Service == "" {
		return errors.New("consul: the service has no name")
	}
	defer s.client.gate.join()()
	w := s.newWatch(report)
	defer w.alone()
	return w.run(ctx, w.poll)
}

func (s *source) newWatch(report reporter) *watch {
	return &watch{
		source:  s,
		report:  report,
		limiter: rate.NewLimiter(s.rate, queryBurst),
		guard:   guard{emptyHold: s.options.EmptyHold, keepAnswering: s.options.KeepAnswering},
		tries: tries{
			agents: s.client.agents,
			remote: s.options.Datacenter != "" || s.options.Peer != "",
			judged: s.options.Filter != "" || s.options.PreparedQuery != "",
		},
	}
}

// run polls until ctx ends.
func (w *watch) run(ctx context.Context, poll func(context.Context) error) error {
	defer w.client.begin()()
	for {
		again := w.client.agents.retry()
		err := poll(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			w.succeeded()
			continue
		}
		w.guard.failed(time.Now())
		// After an error the next answer is to come at once, with all there is:
		// blocking on the index of an agent that has lost its state could last.
		w.index = 0
		delay := w.agents.upTo(moveSpread)
		if !w.elsewhere(ctx, err) {
			w.report.Failed(err)
			delay = w.backoff.next(err, w.agents.upTo)
		}
		if err := w.pause(ctx, delay, again); err != nil {
			return err
		}
	}
}

// poll asks once and reports what counts. An error means that the answer says
// nothing about the instances.
func (w *watch) poll(ctx context.Context) error {
	if err := w.limiter.Wait(ctx); err != nil {
		return err
	}
	answer, err := w.ask(ctx)
	if err != nil {
		return err
	}
	if !w.began {
		w.inherit(answer)
	}
	if err := w.trust(answer); err != nil {
		return err
	}
	before := w.last
	forgot := w.advance(answer.Index)
	counts, err := w.countsAsItIs(ctx, answer, forgot)
	if err != nil {
		return fmt.Errorf("confirm the answer: %w", err)
	}
	if !counts {
		if w.guard.unsettled(time.Now(), w.loss(answer)) {
			if err := sleep(ctx, settleTime); err != nil {
				return err
			}
		}
		if answer, err = w.confirm(ctx); err != nil {
			return fmt.Errorf("confirm the answer: %w", err)
		}
		// A server that lags behind has forgotten nothing.
		w.advance(answer.Index)
		forgot = forgot && answer.Index < before || w.blind(answer)
		if lost := w.guard.doubtful(time.Now(), w.loss(answer), forgot); len(lost) > 0 {
			w.hold(lost, answer.Instances)
		}
	}
	w.accept(answer)
	return nil
}

// inherit takes over the set that is in use before the first answer counts:
// from another source, or saved before the start. Nothing shows yet that the
// answers continue it. An answer that would leave a saved set unused, because
// there is nothing in service, is measured against it: Consul may have lost its
// state while nobody watched.
func (w *watch) inherit(answer Answer) {
	if serving(answer.Instances) == 0 {
		w.report.Restore()
	}
	if known, ok := w.report.Instances(); ok {
		w.guard.inherit(known)
		if !w.report.Fresh() {
			w.guard.failed(time.Now())
		}
	}
}

// hold keeps instances in service for a while.
func (w *watch) hold(lost, listed []discovery.Instance) {
	kept := w.guard.hold(time.Now(), lost, listed)
	w.client.log.Warn().Str("consul_service", w.options.Service).Int("instances", kept).
		Stringer("for", w.options.EmptyHold).Msg("instances kept after a sudden loss")
}

// query asks the agent in use, and notes which one that is.
func (w *watch) query(ctx context.Context, q api.QueryOptions) (Answer, error) {
	return w.queryAs(ctx, &w.options, q)
}

// queryAs is query with other options.
func (w *watch) queryAs(ctx context.Context, o *ServiceOptions, q api.QueryOptions) (Answer, error) {
	answer, err := w.client.query(ctx, o, q)
	w.asked = answer.agent
	return answer, err
}

// errFiltered: what the token may not see is missing from the answer.
const errFiltered = refusal("the answer is filtered by ACLs")

// trust returns why an answer must not be used, if so.
func (w *watch) trust(answer Answer) error {
	switch {
	case !answer.KnownLeader && !answer.Streaming:
		return errNoLeader
	case answer.Streaming:
		if err := w.client.agents.ailing(answer.agent); err != nil {
			return err
		}
	case answer.Age >= silenceLimit && w.options.PreparedQuery == "":
		return fmt.Errorf("the agent's cache has been without the servers for %v", answer.Age)
	}
	if !answer.FilteredByACL {
		return nil
	}
	// What the token may not see is not gone. But if it never could see it, what
	// it does see counts.
	err := fmt.Errorf("%w: the token lacks %s", errFiltered, permissions(&w.options))
	if len(answer.Instances) == 0 {
		return err
	}
	if w.began && w.filtered || len(w.guard.known) == 0 {
		return nil
	}
	listed := byProcess(answer.Instances)
	if slices.ContainsFunc(w.guard.known, func(i discovery.Instance) bool {
		_, ok := listed[processOf(i)]
		return !ok
	}) {
		return err
	}
	return nil
}

// advance takes note of an answer's index, and reports whether it is smaller
// than the one before.
//
// "Reset the index if it goes backwards. [...] Sanity check index is greater
// than zero [...] it is always safe to use an index of 1 to wait for updates."
// https://developer.hashicorp.com/consul/api-docs/features/blocking
func (w *watch) advance(index uint64) (regressed bool) {
	switch {
	case index == 0:
		w.index = 1
		// A server that does this may also not block: empty the bucket.
		w.limiter.ReserveN(time.Now(), queryBurst)
		return false
	case index < w.last:
		w.last, w.index = index, 0
		return true
	default:
		w.last, w.index = index, index
		return false
	}
}

// accept reports an answer that counts.
func (w *watch) accept(answer Answer) {
	w.warnACLs(answer)
	w.began = true
	if !answer.Streaming {
		w.filtered = answer.FilteredByACL
	}
	w.warnSkipped(answer.Skipped)
	set, kept := w.guard.accept(time.Now(), answer.Instances)
	w.logKept(kept)
	w.report.From(answer.agent.url)
	w.report.Emit(set)
	w.report.Hold(kept.held, kept.unlisted)
	if kept.all() == 0 {
		w.report.Succeeded(answer.Index)
		return
	}
	expiry, _ := w.guard.expiry()
	how := "kept until"
	if kept.held == 0 {
		how = "used as long as they answer, at most until"
	}
	w.report.Failed(fmt.Errorf("consul %s suddenly lists %d instances in service: %d that were are %s %s",
		answer.agent.url, serving(answer.Instances), kept.all(), how, expiry.Format(time.RFC3339)))
}

// logKept logs the end of holds, and the beginning and the end of the time in
// which instances are used that are not listed.
func (w *watch) logKept(k keeping) {
	log := w.client.log.With().Str("consul_service", w.options.Service).Logger()
	if w.unlisted == 0 && k.unlisted > 0 {
		log.Warn().Int("instances", k.unlisted).Stringer("for", w.options.KeepAnswering).
			Msg("consul did not list kept instances in service again: they are used as long as they pass active checks")
	}
	switch {
	case w.unlisted > 0 && k.unlisted == 0:
		log.Info().Int("given_up", k.expired).Msg("no instance is used any more that consul does not list")
	case k.expired > 0:
		log.Warn().Int("instances", k.expired).Msg("kept instances given up: consul did not list them in service again")
	}
	w.unlisted = k.unlisted
}

// warnACLs logs what ACLs may hide, when that begins.
func (w *watch) warnACLs(answer Answer) {
	switch {
	case answer.FilteredByACL && !(w.began && w.filtered):
		w.client.log.Warn().Str("consul_service", w.options.Service).
			Msgf("consul leaves out instances: the token lacks %s", permissions(&w.options))
	case w.blind(answer) && !w.began:
		w.client.log.Warn().Str("consul_service", w.options.Service).
			Msgf("consul lists no instance, but its default policy is deny and no token is set: it takes %s to see one", permissions(&w.options))
	}
}

// warnSkipped logs each entry that is skipped when it first appears.
func (w *watch) warnSkipped(skipped []Skipped) {
	still := make(map[Skipped]bool, len(skipped))
	for _, s := range skipped {
		if !w.warned[s] {
			w.client.log.Warn().Str("consul_service", w.options.Service).Str("id", s.ID).Str("node", s.Node).
				Msgf("instance skipped: %s", s.Why)
		}
		still[s] = true
	}
	w.warned = still
}

// sleep waits for d or the end of ctx, which it returns.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
