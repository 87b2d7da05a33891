package gateway

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"sluice/admin"
	"sluice/config"
	"sluice/events"
)

// shares are shares of splits that a judge or an operator has set in place of those of the
// configuration. It is safe for concurrent use.
type shares struct {
	changed chan struct{} // capacity 1: the configuration must be applied again
	events  *events.Feed

	mu sync.Mutex // guards the fields below

	given map[string]admin.GivenShare
	// splits are those of the configuration in use, with the times at which they became so. A service
	// without a split has an element if it had one; begun is the time of the first configuration.
	splits map[string]splitSince
	begun  time.Time
}

// splitSince is a split, and when it became that of the configuration.
type splitSince struct {
	split config.Split
	since time.Time
}

func newShares(feed *events.Feed) *shares {
	return &shares{changed: make(chan struct{}, 1), events: feed, given: make(map[string]admin.GivenShare), splits: make(map[string]splitSince)}
}

// applyTo returns c with the given shares, except for services whose split is another one in c: who
// changes the configuration has the last word.
func (s *shares) applyTo(c *config.Config) *config.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.given) == 0 {
		return c
	}
	changed := *c
	changed.Services = maps.Clone(c.Services)
	for name, given := range s.given {
		if service := c.Services[name]; fits(given, service.Split) {
			service.Split = service.Split.WithShare(given.Share)
			changed.Services[name] = service
		}
	}
	return &changed
}

// applied forgets the shares that c, which is in use now, does not have, and returns them. Before, a
// refused configuration would end them.
func (s *shares) applied(c *config.Config, now time.Time) (ended map[string]admin.GivenShare) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun.IsZero() {
		s.begun = now
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
	ended = make(map[string]admin.GivenShare)
	maps.DeleteFunc(s.given, func(name string, given admin.GivenShare) bool {
		ends := !fits(given, c.Services[name].Split)
		if ends {
			ended[name] = given
			s.tellReleased(name, "the configuration has another split")
		}
		return ends
	})
	return ended
}

// fits reports whether a share was given in place of that of a split.
func fits(given admin.GivenShare, split config.Split) bool {
	configured := split.Shares()
	return len(configured) == 1 && configured[0].Group == given.Group && configured[0].Size == given.Configured
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

// give sets the share of a service.
func (s *shares) give(service string, given admin.GivenShare) { s.set(service, given, true) }

// judged is give for the verdict of a judge. It reports false, and changes nothing, if an operator
// has set the share meanwhile.
func (s *shares) judged(service string, given admin.GivenShare) bool {
	return s.set(service, given, false)
}

func (s *shares) set(service string, given admin.GivenShare, overrules bool) bool {
	s.mu.Lock()
	before := s.given[service]
	if before.By == admin.ByOperator && !overrules {
		s.mu.Unlock()
		return false
	}
	s.given[service] = given
	s.mu.Unlock()
	if !sameShare(given, before) {
		s.events.Add(events.Event{Kind: events.KindShareGiven, Service: service,
			Text: fmt.Sprintf("The share of the group %s is %.4g %%, by the %s%s", given.Group, 100*given.Share, given.By, because(given.Why))})
	}
	s.announce()
	return true
}

// tellReleased adds to the feed that the share of a service is that of the configuration.
func (s *shares) tellReleased(service, why string) {
	s.events.Add(events.Event{Kind: events.KindShareEnded, Service: service, Text: "The share is that of the configuration again" + because(why)})
}

// release returns a service to the share of the configuration, and reports whether it had another.
func (s *shares) release(service string) bool {
	s.mu.Lock()
	_, had := s.given[service]
	delete(s.given, service)
	s.mu.Unlock()
	if had {
		s.tellReleased(service, "the given one was released")
		s.announce()
	}
	return had
}

func (s *shares) announce() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// of returns what was given to a service.
func (s *shares) of(service string) (given admin.GivenShare, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	given, ok = s.given[service]
	return given, ok
}

// all returns a copy of the given shares, by service.
func (s *shares) all() map[string]admin.GivenShare {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.given)
}

// inherit takes over the shares of the old process.
func (s *shares) inherit(given map[string]admin.GivenShare) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.given, given)
}

// recordShares makes a revision of each given share that has changed, and is in use now.
func (g *Gateway) recordShares() {
	if g.documents.isPaused() {
		return // a new process takes over, and has the history
	}
	now := g.shares.all()
	for _, service := range slices.Sorted(maps.Keys(now)) {
		given, before := now[service], g.recorded[service]
		if sameShare(given, before) {
			continue
		}
		if before.By == "" {
			before.Share = given.Configured
		}
		g.recordShare(service, given, before.Share)
	}
	for _, service := range slices.Sorted(maps.Keys(g.recorded)) {
		if before := g.recorded[service]; now[service].By == "" {
			given := before
			given.Share, given.By, given.Why = before.Configured, admin.ByOperator, "that of the configuration again"
			g.recordShare(service, given, before.Share)
		}
	}
	g.recorded = now
}

func (g *Gateway) recordShare(service string, given admin.GivenShare, before float64) {
	change := config.Change{
		Key:    "services." + service + ".split." + given.Group,
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
