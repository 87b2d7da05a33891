package registration

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/discovery/consul"
)

const (
	// lookEvery is the time between two looks at the agent in use, give or take a
	// tenth: how long it may go unnoticed that it has forgotten the service without
	// having been away.
	lookEvery = 10 * time.Second

	// After an error the next attempt comes after firstRetry, then after twice as
	// long each time up to longestRetry, give or take a half. What Consul refuses
	// is for an operator to change, and asked for less often.
	firstRetry          = time.Second
	longestRetry        = 30 * time.Second
	firstRefusedRetry   = 5 * time.Second
	longestRefusedRetry = time.Minute

	// wakeSpread is the time over which the replicas of a fleet come to an agent
	// that has recovered.
	wakeSpread = 200 * time.Millisecond
	// roundGap is the least time between two rounds.
	roundGap = 500 * time.Millisecond

	// clearTimeout bounds how long an agent that is not in use may keep the
	// registrar from the one that is.
	clearTimeout = time.Second
	// finishTimeout bounds how long a registration that is under way is waited for
	// when it is not wanted any more.
	finishTimeout = time.Second
)

// Consul is how a registrar speaks to Consul's agents. *consul.Client is one.
type Consul interface {
	URL() string              // of the agent in use
	URLs() []string           // of all agents
	Follow() (done func())    // keeps URL up to date until done
	Changed() <-chan struct{} // closed when another agent is used, one has recovered, or the token is another one
	Register(ctx context.Context, url string, r *api.AgentServiceRegistration, obsolete ...string) error
	Deregister(ctx context.Context, url, service, id string) error
	Registered(ctx context.Context, url, key, value string) ([]*api.AgentService, error)
	Report(ctx context.Context, url, service, checkID, status, output string) error
}

// Options are what a registrar is made of. All but Outbound must be set.
type Options struct {
	Consul Consul
	Self   Self
	// Ready reports whether this sluice serves, and if not, why: for CheckTTL.
	Ready func() (ready bool, missing []string)
	Log   zerolog.Logger

	// Outbound returns the address of this machine that packets to an agent come
	// from, or ""; the function Outbound if nil.
	Outbound func(agentURL string) string
}

// Registrar keeps one service registered. It is safe for concurrent use.
type Registrar struct {
	Options
	poke chan struct{} // capacity 1: settings have changed

	// For the goroutine of Run, and Leave after it.

	places []*place // one per agent
	inUse  string   // the agent that was in use in the last round; "": nothing was to be registered

	mu       sync.Mutex // guards the fields below
	settings *Settings  // nil: nothing is to be registered
	active   bool       // settings were not nil at some time
	status   Status
}

// New returns a registrar that has nothing to register yet.
func New(o Options) *Registrar {
	if o.Outbound == nil {
		o.Outbound = Outbound
	}
	r := &Registrar{Options: o, poke: make(chan struct{}, 1)}
	for _, url := range o.Consul.URLs() {
		r.places = append(r.places, &place{url: url})
	}
	r.status.Since = time.Now()
	return r
}

// Set says what is to be registered from now on; nil: nothing.
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
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// Status returns a copy of what is known now.
func (r *Registrar) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Run keeps registered what Set says until ctx ends. What is registered then
// stays until Leave. A registration that is under way when ctx ends may keep it
// for one more second. It must be called once.
func (r *Registrar) Run(ctx context.Context) {
	var follow func()
	defer func() {
		if follow != nil {
			follow()
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	anew := true // whatever an agent has, it is told again
	for {
		select {
		case <-r.poke:
			anew = true
		default:
		}
		changed := r.Consul.Changed() // before the round, so that none is missed
		begin := time.Now()
		settings, active := r.wanted()
		if active && follow == nil {
			follow = r.Consul.Follow()
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
		if !sleep(ctx, max(rand.N(wakeSpread), roundGap-time.Since(begin))) {
			return
		}
	}
}

// roundUntil is round, but broken off when changed is closed: there is no use
// in waiting for an agent that has been given up.
func (r *Registrar) roundUntil(ctx context.Context, changed <-chan struct{}, s *Settings, anew bool) time.Time {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	})
	return r.round(ctx, s, anew)
}

// wanted returns what is to be registered, and whether anything ever was.
func (r *Registrar) wanted() (*Settings, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.settings, r.active
}

// round brings every agent that is due to what it should have, and returns when
// the next one is. With anew all are due, and the agent in use is told again.
func (r *Registrar) round(ctx context.Context, s *Settings, anew bool) (next time.Time) {
	next = time.Now().Add(time.Hour)
	inUse, done := "", s == nil // whether the agent in use has what it should have
	if s == nil {
		r.note(Status{State: StateOff})
	} else {
		inUse = r.Consul.URL()
	}
	for _, p := range r.places {
		if p.url == inUse {
			r.keep(ctx, p, *s, anew || inUse != r.inUse)
			next, done = p.next(), p.failures == 0
		}
	}
	r.inUse = inUse
	if !done {
		return next // the old registration serves as long as there is no new one
	}
	var clearing sync.WaitGroup
	now := time.Now()
	for _, p := range r.places {
		if p.url != inUse && !p.clean && (anew || !now.Before(p.due)) {
			clearing.Go(func() { r.clear(ctx, p, inUse) })
		}
	}
	clearing.Wait()
	var leftovers []string
	for _, p := range r.places {
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

// keep makes sure that the agent in use has what it should have.
func (r *Registrar) keep(ctx context.Context, p *place, s Settings, anew bool) {
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
		others, err = r.look(ctx, p, want, anew)
	}
	if err == nil && want.check == CheckTTL && (p.made != made || !now.Before(p.report)) {
		if err = r.tell(ctx, p.url, want); errors.Is(err, consul.ErrNotRegistered) {
			if others, err = r.look(ctx, p, want, true); err == nil {
				err = r.tell(ctx, p.url, want)
			}
		}
		p.report = now.Add(s.Check.Interval - s.Check.Interval/10)
	}
	if err == nil && look {
		r.tidy(ctx, p, others)
	}
	if ctx.Err() != nil {
		p.due = time.Now() // it is not known what came of it
		return
	}
	if err == nil && look {
		p.due = now.Add(lookEvery - lookEvery/10 + rand.N(lookEvery/5))
	}
	p.done(err)
	status := Status{State: StateRegistered, Service: want.Name, ID: want.ID, Agent: p.url, Check: want.check}
	if err != nil {
		status.State, status.LastError = StateFailing, err.Error()
	}
	r.note(status)
}

// note keeps the present status, and logs what is new.
func (r *Registrar) note(now Status) {
	r.mu.Lock()
	before := r.status
	if now.State == StateOff && before.State == StateOff {
		r.mu.Unlock()
		return
	}
	now.Registrations, now.Errors, now.Leftovers = before.Registrations, before.Errors, before.Leftovers
	now.Since = before.Since
	if now.State != before.State {
		now.Since = time.Now()
	}
	if now.LastError != "" {
		now.Errors++
	}
	r.status = now
	r.mu.Unlock()
	switch {
	case now.LastError != "" && now.LastError != before.LastError:
		r.Log.Warn().Str("service", now.Service).Str("id", now.ID).Str("error", now.LastError).
			Msg("cannot make sure that this sluice is registered in Consul; it serves all the same")
	case now.State == StateRegistered && before.State == StateFailing:
		r.Log.Info().Str("service", now.Service).Str("id", now.ID).Str("agent", now.Agent).
			Stringer("after", now.Since.Sub(before.Since)).Msg("the registration in Consul is as it should be again")
	}
}

// Leave takes away what is registered, from all agents at once, for as long as
// ctx lasts. It must not be called before Run has returned.
func (r *Registrar) Leave(ctx context.Context) {
	var leaving sync.WaitGroup
	for _, p := range r.places {
		if p.made == nil {
			continue
		}
		leaving.Go(func() {
			event := r.Log.Info()
			err := r.Consul.Deregister(ctx, p.url, p.made.Name, p.made.ID)
			if err != nil {
				event = r.Log.Warn().Err(err)
			}
			event.Str("service", p.made.Name).Str("id", p.made.ID).Str("agent", p.url).Bool("deregistered", err == nil).Msg("leaving Consul")
			p.made = nil
		})
	}
	leaving.Wait()
	if before := r.Status(); before.State != StateOff {
		before.State, before.LastError = StateLeft, ""
		r.note(before)
	}
}

// sleep waits for d and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
