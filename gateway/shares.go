package gateway

import (
	"maps"
	"sync"
	"time"

	"sluice/admin"
	"sluice/config"
)

// shares are shares of splits that a judge or an operator has set in place of those of the
// configuration. It is safe for concurrent use.
type shares struct {
	changed chan struct{} // capacity 1: the configuration must be applied again

	mu    sync.Mutex // guards the field below
	given map[string]admin.GivenShare
}

func newShares() *shares {
	return &shares{changed: make(chan struct{}, 1), given: make(map[string]admin.GivenShare)}
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

// applied forgets the shares that c, which is in use now, does not have. Before, a refused
// configuration would end them.
func (s *shares) applied(c *config.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.given, func(name string, given admin.GivenShare) bool { return !fits(given, c.Services[name].Split) })
}

// fits reports whether a share was given in place of that of a split.
func fits(given admin.GivenShare, split config.Split) bool {
	configured := split.Shares()
	return len(configured) == 1 && configured[0].Group == given.Group && configured[0].Size == given.Configured
}

// give sets the share of a service. configured is its split without given shares.
func (s *shares) give(service string, configured config.Split, share float64, by, why string) {
	own := configured.Shares()[0]
	s.mu.Lock()
	s.given[service] = admin.GivenShare{Group: own.Group, Share: share, Configured: own.Size, By: by, Why: why, Since: time.Now()}
	s.mu.Unlock()
	s.announce()
}

// release returns a service to the share of the configuration, and reports whether it had another.
func (s *shares) release(service string) bool {
	s.mu.Lock()
	_, had := s.given[service]
	delete(s.given, service)
	s.mu.Unlock()
	if had {
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
