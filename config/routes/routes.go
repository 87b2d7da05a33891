// Package routes translates a configuration into the routes of requests, and of the connections of
// listeners for TCP.
package routes

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/discovery/locality"
	"sluice/proxy"
	"sluice/route"
	"sluice/route/auth"
	"sluice/route/pages"
	"sluice/route/ratelimit"
)

// Routes are the routes of a configuration, with what goes on in the next one: the tokens of rate
// limits, the counters of mirrors and of named routes, the users, the keys of issuers of
// tokens, and the clients of authentication servers.
type Routes struct {
	Table   *route.Table
	Streams []*proxy.Streams // of each listener; nil for one with another protocol than tcp

	limiters    limiters
	fleetLimits []FleetLimit
	mirrors     mirrors
	named       namedRoutes
	forwards    forwards
	answers     answers
	users       map[string]*auth.Users // by nameOfUsers
	keySets     keySets
	restored    State                  // of another process; of what Restored returns
	pages       map[string]*pages.Body // of files in use, by path
}

// State is what another process has saved of its routes: who had access there a moment ago has it
// here too.
type State struct {
	Keys  map[string]auth.SavedKeys  `json:"keys"`  // of issuers, by keySetID.name
	Users map[string]auth.SavedUsers `json:"users"` // by nameOfUsers
}

// Restored returns what the first routes of a process begin with, as another process has saved it.
func Restored(s State) *Routes { return &Routes{restored: s} }

// nameOfUsers returns what the users of a are known by: the path of their file, or what identifies
// their lines without showing them.
func nameOfUsers(a *config.BasicAuth) string {
	if a.UsersFile != "" {
		return a.UsersFile
	}
	return fmt.Sprintf("listed %x", sha256.Sum256([]byte(strings.Join(a.Lines(), "\n"))))
}

// openUsers returns the users of a, of which another process may have verified some.
func (r *Routes) openUsers(name string, a *config.BasicAuth) (users *auth.Users, err error) {
	if a.UsersFile != "" {
		users, err = auth.OpenUsers(a.UsersFile)
	} else {
		users, err = auth.ListedUsers(a.Lines(), false) // checked before
	}
	if saved, known := r.restored.Users[name]; known && err == nil {
		users.Restore(saved)
	}
	return users, err
}

// builder builds Routes.
type builder struct {
	*Routes
	config   *config.Config
	services map[string]*route.Service
	chains   map[string]*chain // by service
	machine  *locality.Machine
	fleet    *ratelimit.Fleet
	admin    *route.Handler
	before   *Routes

	namedByTags map[string]int // of Routes.named, by service
	asked       bool           // see Foresee
}

func newBuilder(c *config.Config, services map[string]*route.Service, before *Routes) *builder {
	return &builder{
		Routes: &Routes{
			limiters: make(limiters), mirrors: make(mirrors), named: make(namedRoutes), forwards: make(forwards), answers: make(answers), users: make(map[string]*auth.Users),
			keySets: make(keySets), pages: make(map[string]*pages.Body),
		},
		config: c, services: services, chains: make(map[string]*chain), before: before, namedByTags: make(map[string]int),
	}
}

// Build returns the routes of c to these services. What has the same settings as in before goes on.
// machine says where a registry may lead requests, fleet with whom limits are kept, and admin is
// the admin API for routes to it. It changes nothing that is in use.
func Build(c *config.Config, services map[string]*route.Service, machine *locality.Machine, fleet *ratelimit.Fleet, admin *route.Handler, before *Routes) (*Routes, error) {
	if before == nil {
		before = new(Routes)
	}
	b := newBuilder(c, services, before)
	b.machine, b.fleet, b.admin = machine, fleet, admin
	var err error
	if b.Table, err = b.table(); err != nil {
		return nil, err
	}
	if b.Streams, err = b.streams(); err != nil {
		return nil, err
	}
	b.fleetLimits = b.limiters.ofFleet()
	return b.Routes, nil
}

func (b *builder) table() (*route.Table, error) {
	routes := make([]route.Route, len(b.config.Routes))
	for i := range b.config.Routes {
		r := &b.config.Routes[i]
		actions, err := b.actionsOf(r)
		if err != nil {
			return nil, fmt.Errorf("route %d: %w", i+1, err)
		}
		if routes[i], err = b.routeOf(r, actions); err != nil {
			return nil, fmt.Errorf("route %d: %w", i+1, err)
		}
		if routes[i].Weighted, err = b.weightedOf(r, actions); err != nil {
			return nil, fmt.Errorf("route %d: %w", i+1, err)
		}
	}
	table, err := route.NewTable(routes)
	if err != nil || b.asked {
		return table, err
	}
	client := &b.config.Client
	table.ErrorPages, err = b.withFiles(client.BuiltErrorPages(), func(i int) string { return client.ErrorPages[i].File })
	return table, err
}

// routeOf returns r, which leads to at most one service, for the route table.
func (b *builder) routeOf(r *config.Route, actions *route.Actions) (t route.Route, err error) {
	t = r.Target()
	t.Name, t.Requests = r.Name, b.requestsOf(r)
	if target := b.services[r.Service]; target != nil { // else the route redirects, or has several services
		t.Service = withSettings(target, r)
		t.Split = splitOf(r, b.config.Services[r.Service], target)
		t.Router, err = b.routerOf(r, actions)
	}
	t.Actions, t.Mirror = actions, b.mirrorOf(r, actions)
	return t, err
}

// Close closes what next has not, which is in use now; nil: everything. Requests that were matched
// before may wait for keys: these close after the time late.
func (r *Routes) Close(next *Routes, late time.Duration) {
	if r == nil {
		return
	}
	if next == nil {
		next = new(Routes)
	}
	r.forwards.closeWithout(next.forwards)
	r.keySets.closeWithout(next.keySets, late)
}

// Start begins to read the keys of issuers, until Close or the end of ctx.
func (r *Routes) Start(ctx context.Context) {
	for _, set := range r.keySets {
		set.Start(ctx)
	}
}

// AwaitKeys waits until the keys of issuers have been asked for once, at most for a time.
func (r *Routes) AwaitKeys(ctx context.Context, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for _, set := range r.keySets {
		set.Await(ctx)
	}
}

// Save returns the state for another process. It is secret.
func (r *Routes) Save() State {
	s := State{Keys: make(map[string]auth.SavedKeys), Users: make(map[string]auth.SavedUsers)}
	for id, set := range r.keySets {
		if keys, ok := set.Save(); ok && id.file == "" {
			s.Keys[id.name()] = keys
		}
	}
	for path, users := range r.users {
		s.Users[path] = users.Save()
	}
	return s
}

// KeySets returns the state of the keys of issuers, sorted by source. The second one whose source
// is shown in the same way, as what may be a credential is masked, has " #2" after it, and so on.
func (r *Routes) KeySets() (all []auth.KeySetStatus) {
	if r == nil {
		return nil
	}
	ids := slices.SortedFunc(maps.Keys(r.keySets), func(a, b keySetID) int { return cmp.Compare(a.name(), b.name()) })
	shown := make(map[string]int)
	for _, id := range ids {
		status := r.keySets[id].Status()
		shown[status.Source]++
		if n := shown[status.Source]; n > 1 {
			status.Source = fmt.Sprintf("%s #%d", status.Source, n)
		}
		all = append(all, status)
	}
	slices.SortStableFunc(all, func(a, b auth.KeySetStatus) int { return cmp.Compare(a.Source, b.Source) })
	return all
}

// ReadFiles reads the files of users, keys and pages again, and logs what has become of the keys at
// URLs. faults has what was logged, by path or URL; it must not be shown.
func (r *Routes) ReadFiles(faults map[string]string, log zerolog.Logger) {
	for id, set := range r.keySets {
		changed, _ := set.Refresh()
		status := set.Status()
		switch err := status.Err; {
		case err != nil && faults[id.name()] != err.Error():
			faults[id.name()] = err.Error()
			log.Warn().Str("source", status.Source).Int("keys", len(status.Keys)).Err(err).Msg("the keys of an issuer of tokens cannot be read: the previous ones stay in use")
		case err == nil && faults[id.name()] != "":
			delete(faults, id.name())
			log.Info().Str("source", status.Source).Int("keys", len(status.Keys)).Msg("the keys of an issuer of tokens can be read again")
		case changed:
			log.Info().Str("source", status.Source).Int("keys", len(status.Keys)).Msg("the file of keys has changed")
		}
	}
	for path, users := range r.users {
		readAgain(path, users, faults, log, "the file of users cannot be used: the previous users stay in use", "the file of users has changed")
	}
	for path, page := range r.pages {
		readAgain(path, page, faults, log, "the file of a page cannot be used: the previous page stays in use", "the file of a page has changed")
	}
}

func readAgain(path string, file interface{ Refresh() (bool, error) }, faults map[string]string, log zerolog.Logger, fault, change string) {
	changed, err := file.Refresh()
	if err == nil {
		delete(faults, path)
	}
	switch {
	case err != nil && faults[path] != err.Error():
		faults[path] = err.Error()
		log.Warn().Str("file", path).Err(err).Msg(fault)
	case changed:
		log.Info().Str("file", path).Msg(change)
	}
}
