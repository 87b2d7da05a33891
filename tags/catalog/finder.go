package catalog

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	consulsource "sluice/discovery/consul"
	"sluice/observe/panics"
	"sluice/observe/wake"
	"sluice/tags/native"
)

// Finder finds services in Consul's catalog. Only the goroutine that applies configurations calls
// its methods, except Services, Status, Used, Pause and Resume.
type Finder struct {
	newWatch func(consulsource.Selection, ...consulsource.CatalogService) *consulsource.Catalog
	changed  func()
	log      zerolog.Logger
	used     chan struct{} // see Used

	skipped   []string // names that sluice does not allow, as last logged
	lastError string   // why the services cannot be applied, as last logged; "": they can

	following sync.Mutex              // guards the fields below, and the start and end of the watch
	selection *consulsource.Selection // nil: no watch
	start     func()                  // begins the watch of selection
	running   panics.Running          // the watch
	paused    bool

	mu       sync.Mutex // guards the fields below
	watch    *consulsource.Catalog
	services []consulsource.CatalogService
	answered bool // services is from watch
}

// NewFinder returns a finder without services. newWatch returns a watch of a selection's services,
// which begins with the known ones. changed asks to apply the configuration; it must not block.
func NewFinder(newWatch func(consulsource.Selection, ...consulsource.CatalogService) *consulsource.Catalog, changed func(), log zerolog.Logger) *Finder {
	return &Finder{newWatch: newWatch, changed: changed, log: log, used: make(chan struct{})}
}

// State is what a process hands over of the services that it has found.
type State struct {
	// Selection is the selection that found them, as a text to compare; empty: perhaps not all are
	// found. Another version of sluice may write another text: then a new process asks Consul.
	Selection string                        `json:"selection"`
	Services  []consulsource.CatalogService `json:"services"`
}

func selectionText(c *config.Config) string { return fmt.Sprintf("%+v", SelectionOf(c)) }

// Save returns the services for a new process. c is the configuration in use.
func (f *Finder) Save(c *config.Config) *State {
	services, _ := f.Services()
	state := &State{Services: services}
	if wake.Closed(f.used) {
		state.Selection = selectionText(c)
	}
	return state
}

// Restore sets the services until Consul answers: what another process has found, as in a reload
// also with another selection than c, the first configuration, has; or else the services with saved
// names, without known tags.
func (f *Finder) Restore(c *config.Config, other *State, saved []string) {
	for _, name := range saved {
		f.services = append(f.services, consulsource.CatalogService{Name: name})
	}
	complete := c.Catalog == nil
	if other != nil && other.Services != nil && !complete {
		f.services = other.Services
		complete = other.Selection == selectionText(c)
	}
	if complete {
		f.setUsed()
	}
}

// Follow watches the catalog with the selection of c until ctx ends. The services found
// with an earlier selection stay until Consul answers.
func (f *Finder) Follow(ctx context.Context, c *config.Config) {
	selection := SelectionOf(c)
	f.following.Lock()
	defer f.following.Unlock()
	if reflect.DeepEqual(selection, f.selection) {
		if selection == nil {
			f.setUsed()
		}
		return
	}
	f.running.End()
	f.selection = selection
	if selection == nil {
		f.mu.Lock()
		f.watch, f.services = nil, nil
		f.mu.Unlock()
		f.setUsed()
		return
	}
	f.start = func() { f.run(ctx, *selection) }
	if !f.paused {
		f.start()
	}
}

// run watches the catalog until ctx or running ends.
func (f *Finder) run(ctx context.Context, selection consulsource.Selection) {
	watch := f.begin(selection)
	f.running.Begin(ctx, panics.Watch, func(ctx context.Context) {
		if err := watch.Run(ctx, f.found); ctx.Err() == nil {
			f.log.Error().Err(err).Msg("catalog: the watch has ended, new services are not found")
		}
	})
}

// Stop ends what Follow has begun, and waits for it. Follow may begin again, as after a panic.
func (f *Finder) Stop() {
	f.following.Lock()
	defer f.following.Unlock()
	f.running.End()
	f.selection = nil
}

// Pause ends the watch until Resume: a new process watches the catalog.
func (f *Finder) Pause() {
	f.following.Lock()
	defer f.following.Unlock()
	f.paused = true
	f.running.End()
}

// Resume ends Pause.
func (f *Finder) Resume() {
	f.following.Lock()
	defer f.following.Unlock()
	f.paused = false
	if f.selection != nil && !f.running.Runs() {
		f.start()
	}
}

// begin returns a watch of the selected services.
func (f *Finder) begin(selection consulsource.Selection) *consulsource.Catalog {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watch, f.answered = f.newWatch(selection, f.services...), false
	return f.watch
}

// found stores the services in Consul's catalog. The configuration is applied again for the first
// ones of a watch and for other ones; other tags of theirs are the Reader's.
func (f *Finder) found(services []consulsource.CatalogService) {
	if f.store(services) {
		f.changed()
	}
}

// store stores services, and reports whether they are the first ones of the watch or other ones.
func (f *Finder) store(services []consulsource.CatalogService) (news bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	same := func(a, b consulsource.CatalogService) bool { return a.Name == b.Name }
	news = !f.answered || !slices.EqualFunc(f.services, services, same)
	f.services, f.answered = services, true
	return news
}

// Services returns the services, and whether Consul has answered them to the present watch.
func (f *Finder) Services() (services []consulsource.CatalogService, answered bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.services, f.answered
}

// Used returns a channel that is closed when the first services are in use, or there is no catalog.
func (f *Finder) Used() <-chan struct{} { return f.used }

func (f *Finder) setUsed() {
	if !wake.Closed(f.used) {
		close(f.used)
	}
}

// Applied says that a configuration with the services has been applied or, with an error, why not;
// again is when that is tried next.
func (f *Finder) Applied(err error, again time.Duration) {
	if _, answered := f.Services(); answered {
		f.setUsed()
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != f.lastError {
		f.log.Error().Err(err).Stringer("again_in", again).Msg("catalog: the found services cannot be used")
	}
	f.lastError = text
}

// Status returns the status of the watch, or false if there is none.
func (f *Finder) Status() (consulsource.CatalogStatus, bool) {
	f.mu.Lock()
	watch := f.watch
	f.mu.Unlock()
	if watch == nil {
		return consulsource.CatalogStatus{}, false
	}
	return watch.Status(), true
}

// Addition returns the services found, as a part of the configuration beside c.
func (f *Finder) Addition(c *config.Config) config.Addition {
	services, _ := f.Services()
	addition, skipped := additionOf(c, services)
	if len(skipped) > 0 && !slices.Equal(skipped, f.skipped) {
		f.log.Warn().Strs("services", skipped).Msg("catalog: services with names that are not allowed")
	}
	f.skipped = skipped
	return addition
}

// additionOf returns the addition of services found in the catalog.
func additionOf(c *config.Config, services []consulsource.CatalogService) (f config.Addition, skipped []string) {
	if c.Catalog == nil {
		return f, nil
	}
	names := make([]string, len(services))
	for i, s := range services {
		names[i] = s.Name
	}
	return c.Found(names, SelectionOf(c).InstanceFilter())
}

// BeforeFound returns c as it is before anything is found in the catalog: with a service for
// each service that a route refers to.
func BeforeFound(c *config.Config) *config.Config {
	f, _ := additionOf(c, nil)
	merged, _ := config.Merge(c, f)
	return merged
}

// SelectionOf returns the catalog selection of c, or nil.
func SelectionOf(c *config.Config) *consulsource.Selection {
	if c.Catalog == nil {
		return nil
	}
	want := c.Catalog.Select
	s := &consulsource.Selection{
		Name:       want.Name,
		Tag:        want.Tag,
		Meta:       config.MetaOf(want.Meta),
		Typical:    len(c.Catalog.Tags) > 0 || c.Catalog.DefaultRule != "" || c.Catalog.Connect,
		Datacenter: c.Consul.Datacenter,
		Wait:       c.Consul.Wait,
		Probation:  c.Consul.Probation,
	}
	if c.Catalog.DefaultRule != "" {
		return s // also services without tags have routes
	}
	s.TagPrefixes = c.Catalog.TagPrefixes()
	if c.Catalog.Reads(config.DialectSluice) {
		s.MetaKey = native.MetaRoute
	}
	return s
}
