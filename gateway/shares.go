package gateway

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/admin"
	"sluice/config"
	"sluice/consul"
	"sluice/observe/events"
	"sluice/operator"
)

// proposeInterval is the shortest time between two proposals for a service: one may fail.
const proposeInterval = 10 * time.Second

// errOverruled is the error of a verdict about a share that an operator has set.
var errOverruled = errors.New("an operator has set the share")

// shares are shares of splits that a judge or an operator has set in place of those of the
// configuration. Package operator keeps them. What is special about shares is that one counts only
// while the configuration has the split for which it was given, and ends when a later configuration
// has another one. It is safe for concurrent use.
//
// With a prefix, replicas agree about them by keys of Consul's KV store:
//
//	PREFIX/shares/SERVICE   the given share of a service, as JSON
//	PREFIX/judges/REPLICA   a lock that the replica holds while it judges
//
// Each replica may roll back, which takes effect at its own place at once. Only the one with the oldest
// lock moves a share on, by a proposal. So without Consul no share grows.
type shares struct {
	sharesOptions
	store  *operator.Store[operator.Share]
	judges *judges

	mu sync.Mutex // guards the fields below

	// splits are those of the configuration in use, with the times at which they became so. A service
	// without a split has an element if it had one; begun is the time of the first configuration.
	splits   map[string]splitSince
	begun    time.Time
	told     map[string]operator.Share // what the feed has, or another process has told, by key
	proposed map[string]time.Time      // when this replica last proposed a share, by service
}

type sharesOptions struct {
	client *consul.Client
	prefix string // of the keys; "": each replica is on its own
	path   string // of the file; "": none
	wait   func() time.Duration
	own    func(f func()) bool // see operator.StoreOptions
	events *events.Feed
	log    zerolog.Logger
	// replica returns the name of this replica.
	replica func() string
	// split returns the split of a service in the configuration in use, without given shares.
	split func(service string) config.Split
	// settled reports whether all of the configuration is known.
	settled func() bool
	// judging reports whether this replica judges a service.
	judging func() bool
	// changed makes the configuration be applied again.
	changed func()
}

// splitSince is a split, and when it became that of the configuration.
type splitSince struct {
	split config.Split
	since time.Time
}

func newShares(o sharesOptions) *shares {
	s := &shares{sharesOptions: o,
		splits: make(map[string]splitSince), told: make(map[string]operator.Share), proposed: make(map[string]time.Time)}
	s.judges = newJudges(s)
	s.store = operator.NewStore(operator.StoreOptions[operator.Share]{
		Path: o.path, Consul: o.client, Prefix: o.prefix, Wait: o.wait, Own: o.own, Log: o.log,
		Parse: operator.ParseShare, Select: s.judges.selectShares, Beside: s.judges.attend,
		Yields:  func(given, now operator.Share) bool { return now.By == operator.ByOperator && s.fits(now) },
		Changed: s.announce,
		Name:    "given shares", Alone: "this replica judges on its own, and no share grows",
	})
	return s
}

// adopt takes over the shares of another process; nil: those in the file. Nothing is told.
func (s *shares) adopt(state *operator.State[operator.Share]) {
	if state != nil {
		s.store.Adopt(*state)
	} else if err := s.store.Open(); err != nil {
		s.log.Error().Err(err).Msg("the shares of an earlier process are lost, unless Consul has them")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.told, s.store.All())
}

// applyTo returns c with the given shares, except for services whose split is another one in c: who
// changes the configuration has the last word.
func (s *shares) applyTo(c *config.Config) *config.Config {
	given := s.store.All()
	if len(given) == 0 {
		return c
	}
	changed := *c
	changed.Services = maps.Clone(c.Services)
	for _, given := range given {
		if service := c.Services[given.Service]; fits(given, service.Split) {
			service.Split = service.Split.WithShare(given.Share)
			changed.Services[given.Service] = service
		}
	}
	return &changed
}

// fits reports whether a share was given in place of that of a split.
func fits(given operator.Share, split config.Split) bool {
	configured := split.Shares()
	return len(configured) == 1 && configured[0].Group == given.Group && configured[0].Size == given.Configured
}

// fits reports whether a share was given in place of that of the configuration in use.
func (s *shares) fits(given operator.Share) bool { return fits(given, s.split(given.Service)) }

// applied ends the shares in place of which c, which is in use now, has others. Before, a refused
// configuration would end them.
func (s *shares) applied(c *config.Config, now time.Time) {
	for _, given := range s.follow(c, now) {
		_ = s.store.Retract(given) // or the process that serves does it
	}
	s.reconsider()
}

// follow notes the splits of c, and returns the shares that the last configuration had a place for.
func (s *shares) follow(c *config.Config, now time.Time) (ended []operator.Share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun.IsZero() {
		s.begun = now
	}
	for _, given := range s.store.All() {
		if fits(given, s.splits[given.Service].split) && !fits(given, c.Services[given.Service].Split) {
			ended = append(ended, given)
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

// reconsider ends the shares that are older than the configuration, which has another split, and tells
// which are in use. While not all of the configuration is known, they may be for what is to come.
func (s *shares) reconsider() {
	for _, given := range s.store.All() {
		if !s.fits(given) && s.settled() && given.Since.Before(s.since(given.Service)) {
			_ = s.store.Retract(given) // or the process that serves does it
		}
	}
	s.tell()
}

// since returns when the split of a service became that of the configuration in use.
func (s *shares) since(service string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if split, ok := s.splits[service]; ok {
		return split.since
	}
	return s.begun
}

// tell says in the log and in the feed which shares are in use, and which have ended.
func (s *shares) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.store.All()
	for _, key := range slices.Sorted(maps.Keys(all)) {
		given := all[key]
		if given.Same(s.told[key]) || !s.fits(given) {
			continue
		}
		s.told[key] = given
		s.events.Add(events.Event{Kind: events.KindShareGiven, Service: given.Service,
			Text: fmt.Sprintf("The share of the group %s is %.4g %%, by the %s%s", given.Group, 100*given.Share, given.By, events.Because(given.Why))})
		if given.Replica != s.replica() {
			s.log.Info().Str("service", given.Service).Str("group", given.Group).Float64("share", given.Share).
				Str("by", given.By).Str("replica", given.Replica).Str("why", given.Why).Msg("a share of another replica is in use")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.told)) {
		if _, stands := all[key]; stands {
			continue
		}
		given, why := s.told[key], "the given one was released"
		if !s.fits(given) {
			why = "the configuration has another split"
		}
		delete(s.told, key)
		text := "The share is that of the configuration again" + events.Because(why)
		s.events.Add(events.Event{Kind: events.KindShareEnded, Service: given.Service, Text: text})
		s.log.Info().Str("service", given.Service).Msg(text)
	}
}

// give sets the share of a service.
func (s *shares) give(given operator.Share) error {
	defer s.tell()
	return s.store.Put(given, false, nil)
}

// judged sets the share of a service by the verdict of a judge, after a call of tell. It returns
// errOverruled if an operator has set it, and one of another replica whom this one does not know yet
// overrules it later.
func (s *shares) judged(given operator.Share, tell func()) error {
	defer s.tell()
	return s.store.Put(given, true, func(standing map[string]operator.Share) error {
		if now := standing[given.Key()]; now.By == operator.ByOperator && s.fits(now) {
			return errOverruled
		}
		tell()
		return nil
	})
}

// propose sets the share of a service if Consul accepts it before anybody has changed the share. It
// reports false if it is too soon for another proposal.
func (s *shares) propose(given operator.Share) bool {
	s.mu.Lock()
	last := s.proposed[given.Service]
	s.mu.Unlock()
	if time.Since(last) < proposeInterval || !s.store.Propose(given) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proposed[given.Service] = time.Now()
	return true
}

// release returns a service to the share of the configuration.
func (s *shares) release(service string) error {
	defer s.tell()
	_, err := s.store.End(operator.ShareKey(service), "")
	return err
}

// announce makes the configuration be applied again.
func (s *shares) announce() { s.changed() }

// of returns the given share of a service, if it has one that counts.
func (s *shares) of(service string) (given operator.Share, ok bool) {
	given, ok = s.store.All()[operator.ShareKey(service)]
	if !ok || !s.fits(given) {
		return operator.Share{}, false
	}
	return given, true
}

// all returns the given shares that count, by service.
func (s *shares) all() map[string]operator.Share {
	given := make(map[string]operator.Share)
	for _, share := range s.store.All() {
		if s.fits(share) {
			given[share.Service] = share
		}
	}
	return given
}

// state returns what this replica knows of the others about a service, for the admin API; nil: it is
// on its own.
func (s *shares) state(service string) *admin.SharedState {
	if !s.store.Shares() {
		return nil
	}
	state := s.judges.state()
	state.Pending = s.store.Entry(operator.ShareKey(service)).Pending
	if err := s.store.QueryError(); err != nil {
		state.Error = err.Error()
	}
	return &state
}

// newShares returns the given shares, without any.
func (g *Gateway) newShares(c *config.Config) *shares {
	log := g.log
	return newShares(sharesOptions{
		client: g.consul, prefix: c.Consul.Shares, path: c.Admin.Shares, wait: g.consulWait, own: g.owner.Do,
		events: g.events, log: log, replica: g.replicaName, split: g.configuredSplit,
		settled: func() bool { return closed(g.documents.Settled()) && closed(g.finder.applied) },
		judging: func() bool { return len(g.trialsInUse()) > 0 },
		changed: g.documents.Again,
	})
}

// adoptShares takes over the shares of the old process, or reads those in the file.
func (g *Gateway) adoptShares() {
	state := g.handed.GivenShares
	if old := g.handed.Shares; state == nil && old != nil { // of an earlier version: Consul says later which have ended
		state = &operator.State[operator.Share]{Prefix: g.shares.prefix}
		for service, given := range old {
			given.Service = service
			state.Orders = append(state.Orders, operator.Saved[operator.Share]{Order: given, Beside: operator.Beside{Shared: true}})
		}
	}
	g.shares.adopt(state)
	g.recorded = make(map[string]operator.Share)
	for _, given := range g.shares.store.All() {
		g.recorded[given.Service] = given
	}
}

// recordShares makes a revision of each given share that has changed, and is in use now.
func (g *Gateway) recordShares() {
	if g.documents.Paused() {
		return // a new process takes over, and has the history
	}
	now := g.shares.all()
	for _, service := range slices.Sorted(maps.Keys(now)) {
		given, before := now[service], g.recorded[service]
		if given.Same(before) {
			continue
		}
		if before.By == "" {
			before.Share = given.Configured
		}
		g.recordShare(given, before.Share)
	}
	for _, service := range slices.Sorted(maps.Keys(g.recorded)) {
		before := g.recorded[service]
		if _, counts := now[service]; counts {
			continue
		}
		if _, stands := g.shares.store.All()[before.Key()]; stands {
			now[service] = before // its split may be to come
		} else if g.shares.fits(before) { // else the configuration's revision says it
			given := before
			given.Share, given.By, given.Why = before.Configured, operator.ByOperator, "that of the configuration again"
			g.recordShare(given, before.Share)
		}
	}
	g.recorded = now
}

func (g *Gateway) recordShare(given operator.Share, before float64) {
	change := config.Change{
		Key:    "services." + given.Service + ".split." + given.Group,
		Before: config.Percent(before), After: config.Percent(given.Share),
	}
	by := given.By
	if given.Replica != g.replicaName() && given.Replica != "" {
		by += " of " + given.Replica
	}
	reason := fmt.Sprintf("%s: %s", by, change)
	if change.Before == change.After {
		reason = fmt.Sprintf("%s: %s: %s stays", by, change.Key, change.After)
	}
	if given.Why != "" {
		reason += ": " + given.Why
	}
	g.history.Given(reason, []config.Change{change})
}
