package release

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/observe/events"
	"sluice/operator"
)

// proposeInterval is the shortest time between two proposals for a service: one may fail.
const proposeInterval = 10 * time.Second

// longAgo is before any share.
var longAgo = time.Unix(0, 0)

// errOverruled is the error of a verdict about a share that an operator has set.
var errOverruled = errors.New("an operator has set the share")

// Options configure Shares. Without a prefix of keys each replica is on its own.
type Options struct {
	operator.Backing

	// Replica returns the name of this replica.
	Replica func() string
	// Settled reports whether all of the configuration is known. Before, no share ends because the
	// configuration lacks its split.
	Settled func() bool
	// Changed is called when the configuration must be applied again, with other shares. It must
	// not call a method of Shares, nor wait for one.
	Changed func()
	Events  *events.Feed
}

// Shares are shares of splits that a judge or an operator has given in place of the shares of the
// configuration. A store of orders keeps them. What is special about shares is that one counts only
// while the configuration has the split for which it was given, and ends when a later configuration
// has another one. The methods of Shares may be called concurrently.
//
// With a prefix, replicas agree about them by keys of Consul's KV store:
//
//	PREFIX/shares/SERVICE   the override of a service, as JSON
//	PREFIX/judges/REPLICA   a lock that the replica holds while it judges
//
// Each replica may roll back, which takes effect at its own place at once. Only the one with the
// oldest lock moves a share on, by a proposal. So without Consul no share grows.
type Shares struct {
	Store *operator.Store[Share]

	options Options
	log     zerolog.Logger
	judges  *judges
	// recorded are the shares that the history has, by service. Only Restore and Record use them.
	recorded map[string]Share

	mu sync.Mutex // guards the fields below

	// splits are the splits of the configuration in use, with the times from which they are in it.
	// A service without a split has an element if it had one; begun is the time of the first
	// configuration.
	splits   map[string]splitSince
	begun    time.Time
	emitted  map[string]Share     // what the feed has, or another process has emitted, by key
	proposed map[string]time.Time // when this replica last proposed a share, by service
}

// splitSince is a split, and since when the configuration has it.
type splitSince struct {
	split config.Split
	since time.Time
}

// NewShares returns Shares without any.
func NewShares(o Options) *Shares {
	s := &Shares{options: o, log: o.Log,
		splits: make(map[string]splitSince), emitted: make(map[string]Share), proposed: make(map[string]time.Time)}
	s.judges = &judges{shares: s}
	s.Store = operator.NewStore(operator.StoreOptions[Share]{
		Backing: o.Backing,
		Parse:   parse, Select: s.judges.selectShares, Beside: s.judges.holdWhileJudging,
		Yields:  func(override, current Share) bool { return current.By == ByOperator && s.fits(current) },
		Changed: o.Changed,
		Name:    "given shares", Alone: "this replica judges on its own, and no share grows",
	})
	return s
}

// Restore begins the store. The feed gets nothing of the shares. It is called once, before all
// other methods.
func (s *Shares) Restore(state operator.State[Share]) {
	s.Store.Restore(state)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recorded = make(map[string]Share)
	for key, override := range s.Store.All() {
		s.emitted[key], s.recorded[override.Service] = override, override
	}
}

// Owned makes what has changed take effect, because this process owns now.
func (s *Shares) Owned() {
	s.Store.Refresh()
	s.options.Changed() // what the configuration has ended is ended now
}

// ApplyTo returns c with the overrides, except for services whose split is another one in c: who
// changes the configuration has the last word. It does not change c.
func (s *Shares) ApplyTo(c *config.Config) *config.Config {
	all := s.Store.All()
	if len(all) == 0 {
		return c
	}
	changed := *c
	changed.Services = maps.Clone(c.Services)
	for _, override := range all {
		if service := c.Services[override.Service]; fits(override, service.Split) {
			service.Split = service.Split.WithShare(override.Share)
			changed.Services[override.Service] = service
		}
	}
	return &changed
}

// fits reports whether a share was given in place of the share of a split.
func fits(override Share, split config.Split) bool {
	configured := split.Shares()
	return len(configured) == 1 && configured[0].Group == override.Group && configured[0].Size == override.Configured
}

// fits reports whether a share was given in place of the share in the configuration in use.
func (s *Shares) fits(override Share) bool { return fits(override, s.split(override.Service)) }

// split returns the split of a service in the configuration in use, without overrides.
func (s *Shares) split(service string) config.Split {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.splits[service].split
}

// Applied ends the overrides that c, the configuration in use now, has no place for. c has no
// overrides. Call it after c is in use: a refused configuration must end none.
func (s *Shares) Applied(c *config.Config, now time.Time) {
	for _, override := range s.follow(c, now) {
		_ = s.Store.Retract(override) // or the process that serves does it
	}
	s.EndOutdated()
}

// follow notes the splits of c, and returns the shares that the last configuration had a place for.
func (s *Shares) follow(c *config.Config, now time.Time) (ended []Share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = cmp.Or(s.begun, now)
	for _, override := range s.Store.All() {
		if fits(override, s.splits[override.Service].split) && !fits(override, c.Services[override.Service].Split) {
			ended = append(ended, override)
		}
	}
	for name, service := range c.Services {
		if before := s.splits[name]; len(service.Split) > 0 && !maps.Equal(before.split, service.Split) {
			s.splits[name] = splitSince{service.Split, now}
		}
	}
	for name, before := range s.splits {
		if len(before.split) > 0 && len(c.Services[name].Split) == 0 {
			s.splits[name] = splitSince{since: now}
		}
	}
	return ended
}

// GoOn says that c was in use before this process, perhaps with a split that others do not have any
// more: what it has too, nobody has changed, and no share is older. It is called once, after the
// first call of Applied.
func (s *Shares) GoOn(c *config.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, service := range c.Services {
		switch known, there := s.splits[name]; {
		case maps.Equal(known.split, service.Split):
			s.splits[name] = splitSince{known.split, longAgo}
		case !there:
			s.splits[name] = splitSince{since: s.begun}
		}
	}
	s.begun = longAgo
}

// EndOutdated ends the shares that are older than the configuration, which has another split, and
// emits which are in use. While not all of the configuration is known, they may be for what is to
// come.
func (s *Shares) EndOutdated() {
	for _, override := range s.Store.All() {
		if !s.fits(override) && s.options.Settled() && override.Since.Before(s.since(override.Service)) {
			_ = s.Store.Retract(override) // or the process that serves does it
		}
	}
	s.emit()
}

// since returns from when on the configuration has had the present split of a service.
func (s *Shares) since(service string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if split, ok := s.splits[service]; ok {
		return split.since
	}
	return s.begun
}

// emit adds to the log and the feed which shares are in use, and which have ended.
func (s *Shares) emit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.Store.All()
	for _, key := range slices.Sorted(maps.Keys(all)) {
		override := all[key]
		if override.Same(s.emitted[key]) || !fits(override, s.splits[override.Service].split) {
			continue
		}
		s.emitted[key] = override
		s.options.Events.Add(events.Event{Kind: events.KindShareGiven, Service: override.Service,
			Text: fmt.Sprintf("The share of the group %s is %.4g %%, by the %s%s", override.Group, 100*override.Share, override.By, events.Because(override.Why))})
		if override.Replica != s.options.Replica() {
			s.log.Info().Str("service", override.Service).Str("group", override.Group).Float64("share", override.Share).
				Str("by", override.By).Str("replica", override.Replica).Str("why", override.Why).Msg("a share of another replica is in use")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.emitted)) {
		if _, stands := all[key]; stands {
			continue
		}
		override, why := s.emitted[key], "the given one was released"
		if !fits(override, s.splits[override.Service].split) {
			why = "the configuration has another split"
		}
		delete(s.emitted, key)
		text := "The share of the configuration counts again" + events.Because(why)
		s.options.Events.Add(events.Event{Kind: events.KindShareEnded, Service: override.Service, Text: text})
		s.log.Info().Str("service", override.Service).Msg(text)
	}
}

// replacing returns a share in place of the configured one, if the split has the share of one
// group.
func (s *Shares) replacing(service string, share float64, by, why string) (override Share, ok bool) {
	own := s.split(service).Shares()
	if len(own) != 1 {
		return override, false
	}
	return Share{
		Service: service, Group: own[0].Group, Share: share, Configured: own[0].Size, By: by, Why: why,
		Since: time.Now().UTC().Truncate(time.Millisecond), Replica: s.options.Replica(),
	}, true
}

// give sets the share of a service.
func (s *Shares) give(override Share) error {
	defer s.emit()
	return s.Store.Put(override, false, nil)
}

// giveByVerdict sets the share of a service by the verdict of a judge, after a call of emit. It
// returns errOverruled if an operator has set it, and one of another replica whom this one does not
// know yet overrules it later.
func (s *Shares) giveByVerdict(override Share, emit func()) error {
	defer s.emit()
	return s.Store.Put(override, true, func(effective map[string]Share) error {
		if current := effective[override.Key()]; current.By == ByOperator && s.fits(current) {
			return errOverruled
		}
		emit()
		return nil
	})
}

// propose sets the share of a service if Consul accepts it before anybody has changed the share. It
// reports false if it is too soon for another proposal.
func (s *Shares) propose(override Share) bool {
	s.mu.Lock()
	last := s.proposed[override.Service]
	s.mu.Unlock()
	if time.Since(last) < proposeInterval || !s.Store.Propose(override) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proposed[override.Service] = time.Now()
	return true
}

// release returns a service to the share of the configuration.
func (s *Shares) release(service string) error {
	defer s.emit()
	_, err := s.Store.End(Key(service), "")
	return err
}

// overrideOf returns the override of a service, if it has one that counts.
func (s *Shares) overrideOf(service string) (override Share, ok bool) {
	override, ok = s.Store.All()[Key(service)]
	if !ok || !s.fits(override) {
		return Share{}, false
	}
	return override, true
}

// Counting returns the overrides that count, by service.
func (s *Shares) Counting() map[string]Share {
	override := make(map[string]Share)
	for _, share := range s.Store.All() {
		if s.fits(share) {
			override[share.Service] = share
		}
	}
	return override
}

// shared returns what this replica knows of the others about a service; nil: it is on its own.
func (s *Shares) shared(service string) *SharedState {
	if !s.Store.Shares() {
		return nil
	}
	state := s.judges.state()
	state.Pending = s.Store.Entry(Key(service)).Pending
	if err := s.Store.QueryError(); err != nil {
		state.Error = err.Error()
	}
	return &state
}
