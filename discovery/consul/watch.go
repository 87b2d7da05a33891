package consul

import (
	"context"
	"errors"
	"fmt"
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
	guard   discovery.Guard
	tries

	index    uint64    // for the next query; 0: it does not block
	last     uint64    // of the last answer
	filtered bool      // the last answer that counted was filtered by ACLs
	began    bool      // an answer has counted
	trouble  time.Time // when a query last failed

	warned map[Skipped]bool // entries that were logged as skipped

	every time.Duration // between two executions of a prepared query; 0: there was none

	rider   *rider // while the watch has no blocking query of its own
	excused bool   // there is no overview to ride on
}

// reporter is where a watch reports: to a discovery.Watch, whose methods these
// are, or to one of several data centres.
type reporter interface {
	Instances() ([]discovery.Instance, bool)
	Restore()
	From(endpoint string)
	Emit(set []discovery.Instance)
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
		guard:   discovery.Guard{Probation: s.options.Probation},
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
		w.trouble = time.Now()
		w.guard.Failed(w.trouble)
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
	counts, err := w.confirmed(ctx, answer, forgot)
	if err != nil {
		w.last = before // an index that went backwards is yet to count
		return fmt.Errorf("confirm the answer: %w", err)
	}
	// A server that lags behind has forgotten nothing.
	w.accept(counts, forgot && counts.Index < before)
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
		w.guard.Inherit(known)
	}
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
	if w.began && w.filtered || len(w.guard.Absent(answer.Instances)) == 0 {
		return nil
	}
	return err
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

// accept reports an answer that counts. Forgot is as for the guard.
func (w *watch) accept(answer Answer, forgot bool) {
	w.warnACLs(answer)
	w.began = true
	if !answer.Streaming {
		w.filtered = answer.FilteredByACL
	}
	w.warnSkipped(answer.Skipped)
	before := w.guard.OnProbation()
	set := w.guard.Accept(time.Now(), answer.Instances, forgot)
	w.logProbation(before, w.guard.OnProbation())
	w.report.From(answer.agent.url)
	w.report.Emit(set)
	w.report.Succeeded(answer.Index)
}

// logProbation logs when instances are put on probation, and when none is any more.
func (w *watch) logProbation(before, now int) {
	log := w.client.log.With().Str("consul_service", w.options.Service).Logger()
	switch {
	case now > before:
		log.Warn().Int("instances", now).Stringer("for", w.options.Probation).
			Msg("consul has lost instances: they are on probation, used until they first fail")
	case now == 0 && before > 0:
		log.Info().Msg("no instance is on probation any more")
	}
}

// blind reports whether an empty answer may be one that ACLs emptied: Consul
// does not tell a client without a token that it filtered its answer.
func (w *watch) blind(answer Answer) bool {
	return answer.Listed == 0 && answer.DefaultDeny && answer.anonymous
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
