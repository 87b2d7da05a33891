package catalog

import (
	"cmp"
	"context"
	"maps"
	"math"
	"reflect"
	"slices"
	"sync"
	"time"

	"sluice/config"
	"sluice/discovery"
	"sluice/observe/panics"
	"sluice/observe/wake"
	"sluice/tags"
	"sluice/tags/claim"
)

// Reader reads routes from the tags of instances, in the sets that gates have passed: tags cost no
// query of their own, and delay no set. Its methods may be called concurrently, but Ask and Applied
// by one goroutine, one after the other.
type Reader struct {
	changed func()
	waiting waiting

	// Of resolve.

	resolver  claim.Resolver
	documents *config.Config // as in the last call
	rules     *claim.Rules   // of documents

	mu       sync.Mutex // guards the fields below
	services map[string]*taggedService
	reader   claim.Reader
	latest   claim.Result // not in use yet
	inUse    claim.Result
	former   map[string]string // holders of routes in the old process
	serves   bool              // clients are served
}

// taggedService is a service whose instances may have tags of the dialects.
type taggedService struct {
	gate    *Gate
	reader  claim.Reader      // of the gate: see readerOf
	read    map[string]reread // by id and address
	asked   *claim.Service    // what was asked for at the version; nil: not known
	version uint64
	latest  claim.Service // as last resolved
	inUse   claim.Service // as the routes in use were resolved
}

// reread is what the tags of an instance were read as.
type reread struct {
	profile  string
	readings []claim.Reading
}

// NewReader returns a reader without a dialect. changed asks to apply the configuration;
// it must not block.
func NewReader(changed func()) *Reader {
	return &Reader{changed: changed, services: make(map[string]*taggedService)}
}

// Gate returns a new gate of a service, with its configuration. apply passes sets to its pool;
// whole: it is the latest one, and nothing waits or is kept. It must not call gate or reader.
func (r *Reader) Gate(name string, configured config.Service, apply func(set discovery.Set, whole bool)) *Gate {
	r.mu.Lock()
	defer r.mu.Unlock()
	reader := readerOf(r.reader, configured)
	gate := &Gate{apply: apply, changed: r.changed, waiting: &r.waiting, reader: reader, leads: configured.Leader() != nil}
	r.services[name] = &taggedService{gate: gate, reader: reader}
	return gate
}

// readerOf returns the reader for a service: only tags in Consul's catalog are read.
func readerOf(reader claim.Reader, configured config.Service) claim.Reader {
	if configured.Consul == nil {
		return claim.Reader{}
	}
	return reader
}

// Forget removes the gate of a service.
func (r *Reader) Forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.services[name]; s != nil {
		s.gate.end()
		delete(r.services, name)
	}
}

// Start makes the first sets wait for the routes of the first configuration.
func (r *Reader) Start(c *config.Config) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.useLocked(claim.NewReader(c), c)
}

// useLocked sets the reader of c, which is in use now. The services wait for routes that it reads.
func (r *Reader) useLocked(reader claim.Reader, c *config.Config) {
	r.reader = reader
	for name, s := range r.services {
		own := reader // of a service that was found
		if configured, ok := c.Services[name]; ok {
			own = readerOf(reader, configured)
			s.gate.lead(configured.Leader() != nil)
		}
		if own.Same(s.reader) {
			continue
		}
		s.reader, s.read, s.asked = own, nil, nil
		s.gate.read(own)
	}
}

// Asked is what the catalog adds to a configuration.
type Asked struct {
	Config *config.Config  // with the groups that Routes need
	Found  config.Addition // the services found in the catalog, with what tags ask for
	Routes config.Addition // that tags ask for

	reader   claim.Reader
	profiles map[string]string // of the services, for which Routes are
	former   bool              // Config has groups that only the routes in use until now need
}

// Ask returns what the catalog adds to c. It writes to found, the services found in the catalog.
// The configuration may be refused: what is in use stays until Applied.
func (r *Reader) Ask(c *config.Config, found config.Addition) Asked {
	asked := Asked{Config: c, Found: found, reader: claim.NewReader(c)}
	asked.Routes.Origin = "tags in Consul's catalog"
	all := c.Services
	if len(found.Services) > 0 { // none of them is in c
		all = maps.Clone(found.Services)
		maps.Copy(all, c.Services)
	}
	var services []claim.Service
	services, asked.profiles = r.snapshot(all, asked.reader)
	inUse := r.InUse()
	result := r.resolve(services, c)
	for _, name := range slices.Sorted(maps.Keys(result.Settings)) {
		service, ok := found.Services[name]
		if !ok {
			continue // an operator's
		}
		settings := result.Settings[name]
		// In reverse order upstream comes first: no other setting may take it away.
		for _, key := range slices.Backward(slices.Sorted(maps.Keys(settings))) {
			with, err := config.DecodeService(service, tags.Keys{key: settings[key]}, c)
			if err != nil {
				result.Problems = append(result.Problems, claim.Problem{Ask: claim.Ask{Service: name}, Kind: claim.KindBad, Reason: "the setting " + key + " cannot be used: " + err.Error()})
				continue
			}
			service = with
		}
		found.Services[name] = service
	}
	r.resolved(result)
	for _, route := range result.Routes {
		route.Group = route.Members // of a shared route none: its parts have groups
		if route.Protocol != "" {
			asked.Routes.Streams = append(asked.Routes.Streams, route.Route)
			continue
		}
		asked.Routes.Routes = append(asked.Routes.Routes, route.Route)
	}
	if !r.reads(asked.reader) { // else the former groups could have the instances of the next ones
		inUse.Groups = nil
	}
	groups := groupsFor(result, inUse)
	asked.former = !reflect.DeepEqual(groups, groupsFor(result, claim.Result{}))
	asked.divide(groups)
	return asked
}

// reads reports whether the reader in use reads the same.
func (r *Reader) reads(reader claim.Reader) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reader.Same(reader)
}

// divide adds groups to services.
func (a *Asked) divide(divided map[string]map[string]config.Group) {
	if len(divided) == 0 {
		return
	}
	copied := *a.Config
	copied.Services = maps.Clone(a.Config.Services)
	a.Config = &copied
	for name, groups := range divided {
		of := copied.Services
		if _, ok := a.Found.Services[name]; ok {
			of = a.Found.Services
		}
		service, ok := of[name]
		if !ok {
			continue
		}
		service.Groups = maps.Clone(service.Groups)
		if service.Groups == nil {
			service.Groups = make(map[string]config.Group, len(groups))
		}
		maps.Copy(service.Groups, groups)
		of[name] = service
	}
}

// groupsFor returns the groups of r, and those of the result in use, whose routes need them until
// they are replaced.
func groupsFor(r, inUse claim.Result) map[string]map[string]config.Group {
	all := make(map[string]map[string]config.Group)
	for _, groups := range []map[string]map[string]config.Group{r.Groups, inUse.Groups} {
		for service, of := range groups {
			if all[service] == nil {
				all[service] = make(map[string]config.Group)
			}
			maps.Copy(all[service], of)
		}
	}
	return all
}

// snapshot returns the services with what their tags ask for by the reader of a configuration,
// and the profiles that these have.
func (r *Reader) snapshot(all map[string]config.Service, reader claim.Reader) (services []claim.Service, profiles map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	profiles = make(map[string]string)
	views := make(map[string]seen)
	for name, s := range r.services {
		s.gate.passSettled()
		configured, ok := all[name]
		if !ok {
			continue
		}
		view := s.gate.seen()
		if own := readerOf(reader, configured); !own.Same(s.reader) {
			view.profile = profileOf(own, view.set)
		}
		profiles[name] = view.profile
		if configured.Consul != nil {
			views[name] = view
		}
	}
	services = r.askingLocked(all, reader, views)
	for _, s := range services {
		r.services[s.Name].latest = s
	}
	return services, profiles
}

// askingLocked returns the services of views with what their tags ask for by a reader. It keeps
// what the one in use has read.
func (r *Reader) askingLocked(all map[string]config.Service, reader claim.Reader, views map[string]seen) (services []claim.Service) {
	for name, view := range views {
		if view.profile == "" && len(view.kept) == 0 {
			continue
		}
		s, inConsul := r.services[name], cmp.Or(all[name].Consul.Service, name)
		switch {
		case !reader.Same(s.reader):
			service, _ := view.asks(name, inConsul, reader, nil)
			services = append(services, service)
		case s.asked != nil && s.version == view.version && s.asked.InConsul == inConsul:
			services = append(services, *s.asked)
		default:
			service, read := view.asks(name, inConsul, reader, s.read)
			s.read, s.asked, s.version = read, &service, view.version
			services = append(services, service)
		}
	}
	return services
}

// asks returns the service with what its instances ask for. before is what the same reader has
// read.
func (v *seen) asks(name, inConsul string, reader claim.Reader, before map[string]reread) (service claim.Service, read map[string]reread) {
	service = claim.Service{Name: name, InConsul: inConsul}
	read = make(map[string]reread, len(v.set))
	for i := range v.set {
		instance := &v.set[i]
		key := instance.ID + " " + instance.HostPort()
		one, profile := before[key], reader.Profile(instance)
		if one.profile != profile || one.readings == nil {
			one = reread{profile, reader.Read(inConsul, instance)}
		}
		read[key] = one
		service.Instances = append(service.Instances, claim.Instance{
			ID: instance.ID, Node: instance.Node, Age: claim.AgeOf(instance), Meta: instance.Meta, Readings: one.readings,
		})
	}
	for i := range v.kept {
		if old := &v.kept[i]; read[old.ID+" "+old.HostPort()].readings == nil {
			service.Instances = append(service.Instances, claim.Instance{
				// Nobody asks for this any more: it counts after all others.
				ID: old.ID, Node: old.Node, Age: claim.Age{Registered: math.MaxUint64}, Meta: old.Meta, Readings: reader.Read(inConsul, old),
			})
		}
	}
	return service, read
}

// Applied says that the routes of asked are in use. Gates pass the instances that wait for them.
// If groups of the former routes are left, the configuration is applied again without them.
func (r *Reader) Applied(asked Asked) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.useLocked(asked.reader, asked.Config)
	r.inUse = r.latest
	for name, profile := range asked.profiles {
		if s := r.services[name]; s != nil {
			s.inUse = s.latest
			s.gate.markRouted(profile, r.inUse.Groups[name] != nil)
		}
	}
	if asked.former {
		time.AfterFunc(routeSwapDelay, func() {
			defer panics.Contain(panics.Task, nil)
			r.changed()
		})
	}
}

// Release makes all gates pass the instances that wait: their routes cannot be used for now.
func (r *Reader) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.services {
		s.gate.release()
	}
}

// Await waits until the tags of all known instances have effect, at most for timeout.
func (r *Reader) Await(ctx context.Context, timeout time.Duration) { r.waiting.await(ctx, timeout) }

// Settled reports whether the tags of all known instances have effect.
func (r *Reader) Settled() bool {
	quiet := r.waiting.latest()
	return quiet == nil || wake.Closed(quiet)
}

// InUse returns the result in use.
func (r *Reader) InUse() claim.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inUse
}

// Present returns the result in use with the instances of now: one with the same tags as others
// changes no route. documents is the configuration of the documents, and effective the one in use.
func (r *Reader) Present(documents, effective *config.Config) claim.Result {
	services, inUse := r.present(effective)
	result := claim.Resolve(services, claim.NewRules(documents), inUse.Holders)
	for _, p := range inUse.Problems {
		if len(p.Instances) == 0 { // it is not of Resolve
			result.Problems = append(result.Problems, p)
		}
	}
	return result
}

// present returns what services ask for with the instances of now, and the result in use.
func (r *Reader) present(effective *config.Config) ([]claim.Service, claim.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	views := make(map[string]seen)
	for name, s := range r.services {
		if configured, ok := effective.Services[name]; ok && configured.Consul != nil {
			views[name] = s.gate.seen()
		}
	}
	services := r.askingLocked(effective.Services, r.reader, views)
	for i, s := range services {
		if views[s.Name].waits {
			services[i] = r.services[s.Name].inUse
		}
	}
	return slices.DeleteFunc(services, func(s claim.Service) bool { return s.Name == "" }), r.inUse
}

// resolve resolves what services ask for, with the rules of documents. Only Ask calls it.
func (r *Reader) resolve(services []claim.Service, documents *config.Config) claim.Result {
	if len(services) == 0 {
		return claim.Resolve(nil, claim.Rules{}, nil)
	}
	if r.documents != documents {
		rules := claim.NewRules(documents)
		r.documents, r.rules = documents, &rules
	}
	return r.resolver.Resolve(services, r.rules, r.holders())
}

// holders returns which services have the routes that several ask for. Before clients are served it
// is as in the old process: the order of first sets decides nothing.
func (r *Reader) holders() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.serves {
		return r.former
	}
	return r.inUse.Holders
}

// Restore sets the holders of routes in the old process: see claim.Result.
func (r *Reader) Restore(holders map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.former = holders
}

// Serve records that clients are served from now on: a service keeps the routes that it has.
func (r *Reader) Serve() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serves = true
}

// resolved records a result, which is in use after Applied.
func (r *Reader) resolved(result claim.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latest = result
}
