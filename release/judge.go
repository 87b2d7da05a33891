package release

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/config"
	"sluice/observe/events"
	"sluice/observe/wake"
	"sluice/release/judge"
)

const (
	// Interval is the time between two looks at all releases.
	Interval = time.Second
	// WarmUp is how long latencies do not count after a new instance of a canary.
	WarmUp = 30 * time.Second
)

// JudgeOptions configure a Judge.
type JudgeOptions struct {
	Shares *Shares
	// Config returns the configuration in use, with the overrides.
	Config func() *config.Config
	// Pool returns the pool of a service; nil: it has none yet.
	Pool   func(service string) *balancer.Pool
	Events *events.Feed
	Log    zerolog.Logger
}

// Judge compares the canary of each service that has a judge with the rest, rolls back what is
// worse, and moves on what is not. Its methods may be called concurrently, but Look only by one
// goroutine.
type Judge struct {
	// Interval is the time between two looks, WarmUp how long latencies do not count after a new
	// instance of a canary. They must not change after the first look.
	Interval, WarmUp time.Duration

	options  JudgeOptions
	shares   *Shares
	mu       sync.Mutex       // guards the field below
	releases []*canaryRelease // of services with a judge, by name; the slice is replaced as a whole
}

// NewJudge returns a Judge that has not looked yet.
func NewJudge(o JudgeOptions) *Judge {
	return &Judge{Interval: Interval, WarmUp: WarmUp, options: o, shares: o.Shares}
}

// Run looks at all releases every Interval until ctx ends.
func (j *Judge) Run(ctx context.Context) {
	wake.Every(ctx, j.Interval, func() { j.JudgeAll(time.Now()) })
}

// JudgeAll judges all releases by what has happened until now.
func (j *Judge) JudgeAll(now time.Time) {
	j.update()
	for _, r := range j.present() {
		j.judgeRelease(r, now)
	}
}

func (j *Judge) present() []*canaryRelease {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.releases
}

// update follows the configuration in use. A release goes on if its settings and its split are the
// same, but for the share.
func (j *Judge) update() {
	c := j.options.Config()
	j.mu.Lock()
	defer j.mu.Unlock()
	var next, created []*canaryRelease
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		s, pool := c.Services[name], j.options.Pool(name)
		if s.Judge == nil || pool == nil {
			continue
		}
		i := slices.IndexFunc(j.releases, func(r *canaryRelease) bool { return r.fits(pool, s) })
		if i >= 0 {
			next = append(next, j.releases[i])
			continue
		}
		r := newCanaryRelease(pool, s, j.WarmUp)
		next, created = append(next, r), append(created, r)
	}
	for _, r := range j.releases {
		if !slices.Contains(next, r) {
			r.stop()
		}
	}
	for _, r := range created { // the groups may be from a release that ended
		r.start()
	}
	j.releases = next
	j.shares.judges.needed.Store(len(next) > 0)
}

// judgeRelease judges a release by what has happened until now.
func (j *Judge) judgeRelease(r *canaryRelease, now time.Time) {
	service := r.pool.Name
	s, ok := j.options.Config().Services[service]
	if !ok || s.Judge == nil || len(s.Split.Shares()) != 1 {
		return
	}
	override, _ := j.shares.overrideOf(service)
	share := s.Split.Shares()[0].Size
	if override.By == ByJudge && override.Share == 0 && share > 0 {
		return // the rollback is not applied yet
	}
	may := s.Judge.Act == "rollback" && override.By != ByOperator
	d := r.decide(share, j.shares.judges.state().Judges, may, now)
	acts := may && (d.Verdict == judge.Advance || d.Verdict == judge.Rollback)
	switch {
	case d.Verdict == judge.Continue:
		return
	case d.Verdict == judge.Advance && (!acts || override.Share == d.Share || !j.shares.judges.leads()):
		return // up to others, or not applied yet
	}
	order, ok := j.shares.replacing(service, d.Share, ByJudge, d.Reason)
	emit := func() { j.emitVerdict(r, d, acts) }
	switch {
	case !ok: // the configuration has just changed
	case !acts:
		emit()
	case d.Verdict == judge.Advance && j.shares.Store.Shares():
		if j.shares.propose(order) { // else the other replicas have not agreed to the last proposal
			emit()
		}
	// Otherwise an operator has set the share, or a new process starts.
	case j.shares.giveByVerdict(order, emit) == nil && d.Verdict == judge.Rollback:
		r.end()
	}
}

// emitVerdict adds a verdict to the log and to the feed.
func (j *Judge) emitVerdict(r *canaryRelease, d judge.Decision, acts bool) {
	service, group := r.pool.Name, r.canary.group.Name()
	event, level := j.options.Log.Info(), events.Info
	if d.Verdict == judge.Rollback {
		event, level = j.options.Log.Warn(), events.Warning
	}
	event.Str("service", service).Str("group", group).Stringer("verdict", d.Verdict).Float64("share", d.Share).
		Bool("acts", acts).Str("why", d.Reason).Msg("judge of a split")
	j.options.Events.Add(events.Event{Kind: events.KindShareVerdict, Level: level, Service: service,
		Text: fmt.Sprintf("The judge of the group %s says %s%s", group, d.Verdict, events.Because(d.Reason))})
}

// States returns the state of every split of a service with the share of one group, sorted by
// service.
func (j *Judge) States() []State {
	c, counting := j.options.Config(), j.shares.Counting()
	releases := make(map[string]*canaryRelease)
	for _, r := range j.present() {
		releases[r.pool.Name] = r
	}
	states := []State{}
	for _, service := range slices.Sorted(maps.Keys(c.Services)) {
		all := c.Services[service].Split.Shares()
		if len(all) != 1 {
			continue
		}
		s := State{Service: service, Group: all[0].Group, Share: all[0].Size, Configured: all[0].Size}
		if own := j.shares.split(service).Shares(); len(own) == 1 {
			s.Configured = own[0].Size // also while the share in use is still an override
		}
		override, ok := counting[service]
		if ok {
			s.Override = &override
		}
		if r := releases[service]; r != nil {
			s.Judge = r.state()
			s.Judge.Paused = override.By == ByOperator
		}
		s.Shared = j.shares.shared(service)
		states = append(states, s)
	}
	return states
}

// Order carries out an operator's order. The error is or wraps one of the errors beside Order, or
// operator.ErrTakeover.
func (j *Judge) Order(o Order) error {
	s := j.options.Config().Services[o.Service]
	all := s.Split.Shares()
	override, overridden := j.shares.overrideOf(o.Service)
	switch {
	case len(all) != 1:
		return ErrNoSplit
	case o.Group != "" && o.Group != all[0].Group:
		return fmt.Errorf("%w: %s", ErrNoGroup, all[0].Group)
	case o.Verb == Release:
		if !overridden {
			return ErrNoOverride
		}
		return j.shares.release(o.Service)
	case o.Verb != Set && s.Judge == nil:
		return ErrNoJudge
	case o.Verb == Resume && override.By != ByOperator:
		return ErrNotPaused
	}
	order, ok := j.shares.replacing(o.Service, all[0].Size, ByOperator, o.Why)
	if !ok {
		return ErrNoSplit
	}
	switch o.Verb {
	case Set:
		order.Share = o.Share
	case Pause:
		if overridden {
			order.Share = override.Share // it may not be applied yet
		}
	case Resume:
		order.Share, order.By, order.Why = override.Share, ByJudge, cmp.Or(o.Why, "resumed by an operator")
	}
	return j.shares.give(order)
}
