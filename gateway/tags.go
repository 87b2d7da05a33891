package gateway

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/config"
	"sluice/discovery"
	"sluice/observe/panics"
	"sluice/tags/claim"
)

// tagReader reads routes from the tags of instances. It has the sets that the pools have, so that
// tags cost no query of their own.
//
// A change of tags takes effect in this order: routes for the new tags, then requests to the
// instances that have them. Until then a pool keeps the instances that it had. So an instance
// gets no request by a route that it did not ask for.
type tagReader struct {
	changed func() // tells the goroutine that reloads

	// Of resolve.
	resolver  claim.Resolver
	documents *config.Config // as in the last call
	rules     *claim.Rules   // of documents

	mu       sync.Mutex // guards the fields below, and is held while sets are passed to pools
	services map[string]*taggedService
	waiting  int           // services whose tags have no effect yet
	quiet    chan struct{} // closed when waiting is 0
	reader   claim.Reader
	latest   claim.Result // not in use yet
	inUse    claim.Result
	former   map[string]string // holders of routes in the old process
	serves   bool              // clients are served
}

// taggedService is a service whose instances have tags of the dialects, or had some.
type taggedService struct {
	set     []discovery.Instance // the latest
	passed  []discovery.Instance // what the pool has
	apply   func([]discovery.Instance)
	profile string               // of set, for comparison
	used    map[string]bool      // profiles of instances for which there are routes
	waits   bool                 // set has profiles for which there are no routes yet
	kept    []discovery.Instance // that passed has beside set
	settles bool                 // until then, the pool stays as it is: there may be requests by the former routes
	until   time.Time
	read    map[string]reread // by id and address
	asked   *claim.Service    // what set and kept ask for; nil: not known yet
	latest  claim.Service     // as last resolved
	inUse   claim.Service     // as the routes in use were resolved
}

// reread is what the tags of an instance were read as.
type reread struct {
	profile  string
	readings []claim.Reading
}

func newTags(changed func()) *tagReader {
	t := &tagReader{changed: changed, services: make(map[string]*taggedService), quiet: make(chan struct{})}
	close(t.quiet)
	return t
}

// use sets the reader of the configuration in use. The services wait for routes that it reads.
func (t *tagReader) use(reader claim.Reader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.useLocked(reader)
}

func (t *tagReader) useLocked(reader claim.Reader) {
	changed := !reader.Same(t.reader)
	t.reader = reader
	if !changed {
		return
	}
	for _, s := range t.services {
		s.read, s.used, s.asked = nil, nil, nil
		s.profile = profileOf(reader, s.set)
		t.wait(s, true)
	}
}

// take passes a set of a service to apply, at once or after there are routes for its tags.
func (t *tagReader) take(name string, set []discovery.Instance, apply func([]discovery.Instance)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.services[name]
	if s == nil {
		s = &taggedService{}
		t.services[name] = s
	}
	s.set, s.apply, s.asked = set, apply, nil
	if profile := profileOf(t.reader, set); profile != s.profile || s.settles {
		s.profile, s.settles = profile, false
		t.wait(s, true)
		t.changed()
	}
	t.pass(s)
}

// wait records whether the tags of a service have no effect yet.
func (t *tagReader) wait(s *taggedService, waits bool) {
	if s.waits == waits {
		return
	}
	s.waits = waits
	if waits {
		if t.waiting++; t.waiting == 1 {
			t.quiet = make(chan struct{})
		}
	} else if t.waiting--; t.waiting == 0 {
		close(t.quiet)
	}
}

// pass passes the latest set to the pool, or what of it can be used with the present routes.
func (t *tagReader) pass(s *taggedService) {
	set := s.set
	if s.kept != nil {
		s.kept, s.asked = nil, nil
	}
	if (s.waits || s.settles) && len(s.used) > 0 {
		set = t.usable(s)
	}
	s.passed = set
	s.apply(set)
}

// usable returns the latest set without instances with tags for which there are no routes yet:
// of these, the ones that the pool has stay as they were. If none of the instances with the same
// tags is usable any more, those of the pool stay: without them, their routes would have no
// peers.
func (t *tagReader) usable(s *taggedService) []discovery.Instance {
	before := make(map[discovery.Key]*discovery.Instance, len(s.passed))
	for i := range s.passed {
		before[s.passed[i].Key()] = &s.passed[i]
	}
	set := make([]discovery.Instance, 0, len(s.set))
	served := make(map[string]bool)
	for _, i := range s.set {
		if !s.used[t.reader.Profile(&i)] {
			old := before[i.Key()]
			if old == nil {
				continue
			}
			i.Tags, i.Meta, i.Kind = old.Tags, old.Meta, old.Kind
		}
		if i.Usable() {
			served[t.reader.Profile(&i)] = true
		}
		set = append(set, i)
	}
	if !slices.ContainsFunc(s.set, discovery.Instance.Usable) {
		return s.set // there is nothing to wait for
	}
	for i := range s.passed {
		old := &s.passed[i]
		if !old.Usable() || served[t.reader.Profile(old)] {
			continue
		}
		s.kept, s.asked = append(s.kept, *old), nil
	}
	return with(set, s.kept)
}

// with returns set with the instances of kept, also instead of those with the same keys.
func with(set, kept []discovery.Instance) []discovery.Instance {
	if len(kept) == 0 {
		return set
	}
	all := slices.Clone(kept)
	for _, i := range set {
		if !slices.ContainsFunc(kept, func(k discovery.Instance) bool { return k.Key() == i.Key() }) {
			all = append(all, i)
		}
	}
	return discovery.Normalize(all)
}

// forget removes a service.
func (t *tagReader) forget(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.services[name]; s != nil {
		t.wait(s, false)
		delete(t.services, name)
	}
}

// profileOf returns the profiles of a set as a text. If there are several, it has who decides
// between them: see claim.Instance.
func profileOf(reader claim.Reader, set []discovery.Instance) string {
	type age struct {
		usable bool
		oldest uint64 // of the usable instances, or of all if there is none
	}
	ages := make(map[string]age)
	for i := range set {
		profile, one := reader.Profile(&set[i]), age{set[i].Usable(), set[i].Registered}
		if known, again := ages[profile]; !again || one.usable && !known.usable || one.usable == known.usable && one.oldest < known.oldest {
			ages[profile] = one
		}
	}
	if len(ages) == 1 {
		for profile := range ages {
			return profile
		}
	}
	var b strings.Builder
	for _, profile := range slices.Sorted(maps.Keys(ages)) {
		fmt.Fprintf(&b, "%t %d %s\n", ages[profile].usable, ages[profile].oldest, profile)
	}
	return b.String()
}

// snapshot returns the services with what their tags ask for by the reader of a configuration,
// and the profiles that these have, for applied. The configuration may be refused: the reader in use stays.
func (t *tagReader) snapshot(all map[string]config.Service, reader claim.Reader) (services []claim.Service, profiles map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle()
	profiles = make(map[string]string)
	for name, s := range t.services {
		if configured, ok := all[name]; ok && configured.Consul != nil {
			profiles[name] = s.profile
			if !reader.Same(t.reader) {
				profiles[name] = profileOf(reader, s.set)
			}
		}
	}
	services = t.asking(all, reader)
	for _, s := range services {
		t.services[s.Name].latest = s
	}
	return services, profiles
}

// asking returns the services with what their tags ask for by a reader. What the one in use has
// read is kept.
func (t *tagReader) asking(all map[string]config.Service, reader claim.Reader) (services []claim.Service) {
	inUse := reader.Same(t.reader)
	for name, s := range t.services {
		configured, ok := all[name]
		if !ok || configured.Consul == nil {
			continue
		}
		profile := s.profile
		if !inUse {
			profile = profileOf(reader, s.set)
		}
		if profile == "" && len(s.kept) == 0 {
			continue
		}
		inConsul := cmp.Or(configured.Consul.Service, name)
		switch {
		case !inUse:
			service, _ := s.asks(name, inConsul, reader, nil)
			services = append(services, service)
		case s.asked != nil && s.asked.InConsul == inConsul:
			services = append(services, *s.asked)
		default:
			service, read := s.asks(name, inConsul, reader, s.read)
			s.read, s.asked = read, &service
			services = append(services, service)
		}
	}
	return services
}

// asks returns the service with what its instances ask for. before is what the same reader has
// read.
func (s *taggedService) asks(name, inConsul string, reader claim.Reader, before map[string]reread) (service claim.Service, read map[string]reread) {
	service = claim.Service{Name: name, InConsul: inConsul}
	read = make(map[string]reread, len(s.set))
	for i := range s.set {
		instance := &s.set[i]
		key := instance.ID + " " + instance.HostPort()
		one, profile := before[key], reader.Profile(instance)
		if one.profile != profile || one.readings == nil {
			one = reread{profile, reader.Read(inConsul, instance)}
		}
		read[key] = one
		service.Instances = append(service.Instances, claim.Instance{
			ID: instance.ID, Node: instance.Node, Usable: instance.Usable(), Registered: instance.Registered, Meta: instance.Meta, Readings: one.readings,
		})
	}
	for i := range s.kept {
		if old := &s.kept[i]; read[old.ID+" "+old.HostPort()].readings == nil {
			service.Instances = append(service.Instances, claim.Instance{
				// Nobody asks for this any more: it counts after all others.
				ID: old.ID, Node: old.Node, Registered: math.MaxUint64, Meta: old.Meta, Readings: reader.Read(inConsul, old),
			})
		}
	}
	return service, read
}

// settling is how long a pool stays as it is after its routes have changed: longer than a
// request is between its route and its peer.
const settling = 100 * time.Millisecond

// applied says that the routes for these profiles, by this reader, are in use. The instances
// that have waited for them are passed after the time settling.
func (t *tagReader) applied(reader claim.Reader, profiles map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.useLocked(reader)
	t.inUse = t.latest
	for name, profile := range profiles {
		s := t.services[name]
		if s == nil {
			continue
		}
		s.inUse = s.latest
		if s.profile != profile || !s.waits {
			continue
		}
		t.wait(s, false)
		if len(s.used) == 0 {
			t.usedBy(s)
			t.pass(s)
			continue
		}
		s.settles, s.until = true, time.Now().Add(settling)
		time.AfterFunc(settling, func() {
			defer panics.Contain(panics.Task, nil)
			t.changed()
		})
	}
}

// usedBy records the profiles for which there are routes.
func (t *tagReader) usedBy(s *taggedService) {
	s.used = make(map[string]bool)
	for i := range s.set {
		if profile := t.reader.Profile(&s.set[i]); profile != "" || s.profile != "" {
			s.used[profile] = true
		}
	}
}

// settle passes the sets of services whose routes have been in use for long enough. Routes of
// instances that are no longer kept must then be resolved again.
func (t *tagReader) settle() {
	now := time.Now()
	for _, s := range t.services {
		if !s.settles || now.Before(s.until) {
			continue
		}
		s.settles = false
		t.usedBy(s)
		if len(s.kept) > 0 {
			t.wait(s, true)
		}
		s.kept, s.asked, s.passed = nil, nil, s.set
		s.apply(s.set)
	}
}

// release passes the instances that wait, because their routes cannot be used for now.
func (t *tagReader) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.services {
		if s.waits || s.settles {
			used := s.used
			s.used = nil
			t.pass(s)
			s.used = used
		}
	}
}

// await waits until the tags of all known instances have effect, at most for timeout.
func (t *tagReader) await(ctx context.Context, timeout time.Duration) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	t.mu.Lock()
	quiet := t.quiet
	t.mu.Unlock()
	select {
	case <-quiet:
	case <-timer.C:
	case <-ctx.Done():
	}
}
