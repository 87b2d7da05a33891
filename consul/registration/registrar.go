package registration

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

const (
	// defaultCheckInterval is the interval of comparisons with the agent in use, ± 10 %.
	defaultCheckInterval = 10 * time.Second

	// The delay after an error doubles from firstRetry to longestRetry, ± 50 %. After
	// a refusal, which an operator has to resolve, delays are longer.
	firstRetry          = time.Second
	longestRetry        = 30 * time.Second
	firstRefusedRetry   = 5 * time.Second
	longestRefusedRetry = time.Minute

	// wakeSpread spreads the requests of replicas to an agent that has recovered.
	wakeSpread = 200 * time.Millisecond
	// roundGap is the least time between two rounds.
	roundGap = 500 * time.Millisecond

	// clearTimeout bounds the deregistration from an agent that is not in use.
	clearTimeout = time.Second
	// finishTimeout bounds the wait for a running registration after its context ends.
	finishTimeout = time.Second
)

// Consul is the part of *consul.Client that a registrar uses.
type Consul interface {
	URL() string                // of the agent in use
	URLs() []string             // of all agents
	KeepProbing() (done func()) // keeps URL up to date until done
	Changed() <-chan struct{}   // closed when the agent or the token changes, or an agent recovers
	Register(ctx context.Context, url string, r *api.AgentServiceRegistration, obsolete ...string) error
	Deregister(ctx context.Context, url, service, id string) error
	Registered(ctx context.Context, url, key, value string) ([]*api.AgentService, error)
	Listed(ctx context.Context, url, service, key, value string) ([]*api.ServiceEntry, error)
	Report(ctx context.Context, url, service, checkID, status, output string) error
}

// Options configure a registrar. All but the last two must be set.
type Options struct {
	Consul Consul
	Self   Self
	// Ready reports whether the service works, else what is missing: for CheckTTL, and for
	// the first status of other checks. When ctx ends it returns at once, with any result.
	Ready func(ctx context.Context) (ready bool, missing []string)
	Log   zerolog.Logger

	// CheckInterval is the interval of comparisons with the agent in use, ± 10 %. They cost
	// the servers of Consul nothing. Default 10 s.
	CheckInterval time.Duration
	// Outbound is the function Outbound if nil.
	Outbound func(agentURL string) string
}

// Registrar keeps one service registered. It is safe for concurrent use.
type Registrar struct {
	Options
	poke       wake.One      // settings have changed
	registered chan struct{} // closed when an agent has the registration for the first time
	announce   func()        // closes registered

	// Used by Run, and Leave after it.
	agents []*agentState
	inUse  string // agent of the last round; "": nothing to register
	former string // owner in the process before; "": none, or the same

	mu       sync.Mutex // guards the fields below
	settings *Settings  // nil: nothing to register
	active   bool       // settings were once not nil, also in the process before
	status   Status
}

// New returns a registrar with nothing to register.
func New(o Options) *Registrar {
	if o.Outbound == nil {
		o.Outbound = Outbound
	}
	o.CheckInterval = cmp.Or(o.CheckInterval, defaultCheckInterval)
	r := &Registrar{Options: o, poke: wake.NewOne(), registered: make(chan struct{})}
	r.announce = sync.OnceFunc(func() { close(r.registered) })
	for _, url := range o.Consul.URLs() {
		r.agents = append(r.agents, &agentState{url: url})
	}
	r.status.Since = time.Now()
	return r
}

// Set changes the settings; nil: register nothing.
func (r *Registrar) Set(s *Settings) {
	r.mu.Lock()
	r.settings = s
	if s != nil {
		r.active = true
		if r.status.State == StateOff {
			r.status.State, r.status.Since, r.status.Service = StatePending, time.Now(), s.Name
		}
	}
	r.mu.Unlock()
	r.poke.Send()
}

// Save returns the value of the owner of the registrations of this process and the ones
// before it; "" if they had none.
func (r *Registrar) Save() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.active {
		return ""
	}
	return r.Self.Owner.Value
}

// Restore makes the registrations of owner, a result of Save in the process before, those of this
// one: what differs from the settings is deregistered. "" changes nothing. Call it before Run.
func (r *Registrar) Restore(owner string) {
	if owner == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active = true
	if owner != r.Self.Owner.Value && !strings.Contains(owner, "`") {
		r.former = owner
	}
	for _, p := range r.agents {
		p.again = true
	}
}

func (r *Registrar) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Registered returns a channel that is closed when an agent has the registration for the
// first time.
func (r *Registrar) Registered() <-chan struct{} { return r.registered }

// Run keeps the service registered until ctx ends; Leave deregisters it. A running
// registration may delay its return by a second. It must be called once.
func (r *Registrar) Run(ctx context.Context) {
	var follow func()
	defer func() {
		if follow != nil {
			follow()
		}
	}()
	timer := time.NewTimer(0)
	anew := true // register even without a difference
	for {
		select {
		case <-r.poke:
			anew = true
		default:
		}
		changed := r.Consul.Changed() // before the round, so that no change is missed
		begin := time.Now()
		r.mu.Lock()
		settings, active := r.settings, r.active
		r.mu.Unlock()
		if active && follow == nil {
			follow = r.Consul.KeepProbing()
		}
		next := begin.Add(time.Hour)
		if active {
			next = r.roundUntil(ctx, changed, settings, anew)
		}
		timer.Reset(max(time.Until(next), roundGap))
		anew = false
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			continue
		case <-r.poke:
		case <-changed:
		}
		anew = true
		if consul.Sleep(ctx, max(rand.N(wakeSpread), roundGap-time.Since(begin))) != nil {
			return
		}
	}
}

// roundUntil is round, canceled when changed is closed.
func (r *Registrar) roundUntil(ctx context.Context, changed <-chan struct{}, s *Settings, anew bool) time.Time {
	ctx, cancel := context.WithCancel(ctx)
	defer panics.Start(ctx, panics.Watch, func(ctx context.Context) {
		if wake.Await(ctx, changed) == nil {
			cancel()
		}
	})()
	defer cancel()
	return r.round(ctx, s, anew)
}

// round updates every agent that is due, and returns when the next one is. With anew all are due.
func (r *Registrar) round(ctx context.Context, s *Settings, anew bool) (next time.Time) {
	next = time.Now().Add(time.Hour)
	inUse, done := "", s == nil // done: the agent in use is up to date
	if s == nil {
		r.setStatus(Status{State: StateOff})
	} else {
		inUse = r.Consul.URL()
	}
	for _, p := range r.agents {
		if p.url == inUse {
			r.update(ctx, p, *s, anew || inUse != r.inUse)
			next, done = p.next(), p.failures == 0
		}
	}
	r.inUse = inUse
	if !done {
		return next // keep the old registration until there is a new one
	}
	var clearing sync.WaitGroup
	now := time.Now()
	for _, p := range r.agents {
		if p.url != inUse && !p.clean && (anew || !now.Before(p.due)) {
			clearing.Go(func() {
				defer panics.Contain(panics.Watch, nil)
				r.clear(ctx, p, inUse)
			})
		}
	}
	clearing.Wait()
	var leftovers []string
	for _, p := range r.agents {
		if p.trouble != "" || p.url != inUse && !p.clean && p.made != nil {
			leftovers = append(leftovers, p.url)
		}
		if p.url != inUse && !p.clean && p.due.Before(next) {
			next = p.due
		}
	}
	r.mu.Lock()
	r.status.Leftovers = leftovers
	r.mu.Unlock()
	return next
}

// update updates the registration at the agent in use.
func (r *Registrar) update(ctx context.Context, p *agentState, s Settings, anew bool) {
	p.clean = false
	now := time.Now()
	look := anew || !now.Before(p.due)
	if !look && !(p.reports() && !now.Before(p.report)) {
		return
	}
	made := p.made
	want, err := r.define(p, s)
	var others []*api.AgentService
	if err == nil && look {
		others, err = r.ensure(ctx, p, want, anew)
	}
	if err == nil && want.check == CheckTTL && (p.made != made || !now.Before(p.report)) {
		if err = r.report(ctx, p, want); errors.Is(err, consul.ErrNotRegistered) {
			if others, err = r.ensure(ctx, p, want, true); err == nil {
				err = r.report(ctx, p, want)
			}
		}
		if err == nil {
			p.report = now.Add(s.Check.Interval - s.Check.Interval/10)
		}
	}
	if err == nil && look {
		r.tidy(ctx, p, others)
	}
	if ctx.Err() != nil {
		p.due = time.Now() // the result is unknown
		return
	}
	if err == nil && look {
		p.due = now.Add(r.CheckInterval - r.CheckInterval/10 + rand.N(r.CheckInterval/5))
		if p.settling {
			p.due = now.Add(settleInterval)
		}
	}
	p.done(err)
	status := Status{State: StateRegistered, Service: want.Name, ID: want.ID, Agent: p.url, Check: want.check}
	if err != nil {
		status.State, status.LastError = StateFailing, err.Error()
	}
	r.setStatus(status)
}

// setStatus stores and logs a status.
func (r *Registrar) setStatus(status Status) {
	r.mu.Lock()
	before := r.status
	if status.State == StateOff && before.State == StateOff {
		r.mu.Unlock()
		return
	}
	status.Registrations, status.Errors, status.Leftovers = before.Registrations, before.Errors, before.Leftovers
	status.Since = before.Since
	if status.State != before.State {
		status.Since = time.Now()
	}
	if status.LastError != "" {
		status.Errors++
	}
	r.status = status
	r.mu.Unlock()
	if status.State == StateRegistered {
		r.announce()
	}
	switch {
	case status.LastError != "" && status.LastError != before.LastError:
		r.Log.Warn().Str("service", status.Service).Str("id", status.ID).Str("error", status.LastError).
			Msg("cannot register in Consul, will retry; the service runs nevertheless")
	case status.State == StateRegistered && before.State == StateFailing:
		r.Log.Info().Str("service", status.Service).Str("id", status.ID).Str("agent", status.Agent).
			Stringer("after", status.Since.Sub(before.Since)).Msg("registration in Consul recovered")
	}
}

// Listed reports whether an agent may have the registration. Call it after Run has returned.
func (r *Registrar) Listed() bool {
	return slices.ContainsFunc(r.agents, func(p *agentState) bool { return p.made != nil })
}

// Leave deregisters the service from all agents concurrently, until ctx ends, also what the process
// before has registered. Call it after Run has returned, and again while the service is listed.
func (r *Registrar) Leave(ctx context.Context) {
	var leaving sync.WaitGroup
	for _, p := range r.agents {
		if p.made == nil && !p.again {
			continue
		}
		leaving.Go(func() {
			defer panics.Contain(panics.Watch, nil)
			if p.made == nil {
				r.leaveInherited(ctx, p)
				return
			}
			event := r.Log.Info()
			err := r.leave(ctx, p)
			if err != nil {
				event = r.Log.Warn().Err(err)
			}
			event.Str("service", p.made.Name).Str("id", p.made.ID).Str("agent", p.url).Bool("deregistered", err == nil).Msg("leaving Consul")
			if err == nil {
				p.made = nil
			}
		})
	}
	leaving.Wait()
	if before := r.Status(); before.State != StateOff {
		before.State, before.LastError = StateLeft, ""
		r.setStatus(before)
	}
}
