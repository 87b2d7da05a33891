package gateway

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"sluice/config"
	consulsource "sluice/discovery/consul"
	"sluice/observe/events"
	"sluice/observe/panics"
)

// finder finds services in Consul's catalog. Only the goroutine that reloads calls its
// methods, except found, list and status.
type finder struct {
	gateway *Gateway
	applied chan struct{} // closed when the first services are in use, or no catalog is configured

	selection *consulsource.Selection // of the watch; nil: none
	stop      func()                  // ends the watch, and waits for it
	skipped   []string                // names that sluice does not allow, as last logged
	lastError string                  // why the services cannot be applied, as last logged; "": they can

	mu       sync.Mutex // guards the fields below
	watch    *consulsource.Catalog
	services []consulsource.CatalogService
	answered bool // services is from Consul
}

func newFinder(g *Gateway) *finder {
	return &finder{gateway: g, applied: make(chan struct{}), stop: func() {}}
}

// expect sets the services until Consul answers.
func (f *finder) expect(services []consulsource.CatalogService) { f.services = services }

// expectNames is expect for services without known tags.
func (f *finder) expectNames(names []string) {
	for _, name := range names {
		f.services = append(f.services, consulsource.CatalogService{Name: name})
	}
}

// follow watches the catalog with the selection of c until ctx ends. The services found
// with an earlier selection stay until Consul answers.
func (f *finder) follow(ctx context.Context, c *config.Config) {
	selection := selectionOf(c)
	if reflect.DeepEqual(selection, f.selection) {
		if selection == nil {
			f.setApplied()
		}
		return
	}
	f.stop()
	f.selection, f.stop = selection, func() {}
	if selection == nil {
		f.mu.Lock()
		f.watch, f.services = nil, nil
		f.mu.Unlock()
		f.setApplied()
		return
	}
	watch := f.newWatch(*selection)
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		panics.Repeat(ctx.Done(), panics.Watch, time.Second, func() {
			if err := watch.Run(ctx, f.found); ctx.Err() == nil {
				f.gateway.log.Error().Err(err).Msg("catalog: the watch has ended, new services are not found")
			}
		})
	})
	f.stop = func() {
		cancel()
		running.Wait()
	}
}

// newWatch returns a watch of the selected services, which begins with those that are known.
func (f *finder) newWatch(selection consulsource.Selection) *consulsource.Catalog {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watch = f.gateway.sources.Catalog(selection, f.services...)
	return f.watch
}

// found stores the services in Consul's catalog.
func (f *finder) found(services []consulsource.CatalogService) {
	f.mu.Lock()
	f.services, f.answered = services, true
	f.mu.Unlock()
	f.gateway.documents.Again()
}

// list returns the services, and whether Consul has answered.
func (f *finder) list() (services []consulsource.CatalogService, answered bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.services, f.answered
}

// setApplied closes applied.
func (f *finder) setApplied() {
	if !closed(f.applied) {
		close(f.applied)
	}
}

// status returns the status of the watch, or false if there is none.
func (f *finder) status() (consulsource.CatalogStatus, bool) {
	f.mu.Lock()
	watch := f.watch
	f.mu.Unlock()
	if watch == nil {
		return consulsource.CatalogStatus{}, false
	}
	return watch.Status(), true
}

// applyFoundRetry is the time between two attempts to apply services, or a valid configuration, that
// cannot be used. A file that they lack may exist by then.
const applyFoundRetry = 5 * time.Second

// applyFound applies c, the configuration of the documents in use, with the services found in the catalog and
// the given shares of now, and reports whether it succeeded.
func (g *Gateway) applyFound(ctx context.Context, c *config.Config) bool {
	defer func() {
		if _, answered := g.finder.list(); answered {
			g.finder.setApplied()
		}
	}()
	before := g.effective.Load()
	if err := g.apply(ctx, c); err != nil {
		if text := err.Error(); text != g.finder.lastError {
			g.finder.lastError = text
			g.log.Error().Err(err).Stringer("again_in", g.waits.applyFound).Msg("catalog: the found services cannot be used")
		}
		g.tags.release()
		return false
	}
	g.finder.lastError = ""
	now := g.effective.Load()
	if added, removed := onlyIn(now, before), onlyIn(before, now); len(added)+len(removed) > 0 {
		g.log.Info().Strs("added", added).Strs("gone", removed).Int("services", len(now.Services)).Msg("services found in the catalog")
		g.tellFound(added, removed)
	}
	if !g.documents.Paused() { // else a new process has the history
		g.shares.Record(func(reason string, diff []config.Change) { g.history.Given(reason, diff) })
	}
	return true
}

// tellFound adds to the feed which services Consul's catalog has and has no more.
func (g *Gateway) tellFound(added, removed []string) {
	for _, name := range added {
		g.events.Add(events.Event{Kind: events.KindAdded, Service: name, Text: "The service " + name + " was found in Consul's catalog"})
	}
	for _, name := range removed {
		g.events.Add(events.Event{Kind: events.KindRemoved, Service: name, Text: "The service " + name + " is not in Consul's catalog any more"})
	}
}

// fragments returns the parts of the configuration that are not in the file.
// changed is c with the groups that their routes need. profiles are those for tags.applied.
func (g *Gateway) fragments(c *config.Config) (changed *config.Config, fragments []config.Fragment, profiles map[string]string) {
	services, _ := g.finder.list()
	f, skipped := foundFragment(c, services)
	if len(skipped) > 0 && !slices.Equal(skipped, g.finder.skipped) {
		g.log.Warn().Strs("services", skipped).Msg("catalog: services with names that are not allowed")
	}
	g.finder.skipped = skipped
	changed, routes, profiles := g.tagRoutes(c, f)
	return changed, []config.Fragment{f, routes}, profiles
}

// foundFragment returns the fragment of services found in the catalog.
func foundFragment(c *config.Config, services []consulsource.CatalogService) (f config.Fragment, skipped []string) {
	if c.Catalog == nil {
		return f, nil
	}
	list := make([]config.FoundService, len(services))
	for i, s := range services {
		list[i] = config.FoundService(s)
	}
	return c.Found(list, selectionOf(c).InstanceFilter())
}

// BeforeFound returns c as it is before anything is found in the catalog: with a service for
// each service that a route refers to.
func BeforeFound(c *config.Config) *config.Config {
	f, _ := foundFragment(c, nil)
	merged, _ := config.Merge(c, f)
	return merged
}

// onlyIn returns the names of the services that a has and b does not, sorted.
func onlyIn(a, b *config.Config) (names []string) {
	for name := range a.Services {
		if _, ok := b.Services[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// awaitCatalog waits until the first services from the catalog are in use, at most for
// timeout.
func (g *Gateway) awaitCatalog(ctx context.Context, timeout time.Duration) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-g.finder.applied:
	case <-timer.C:
		g.log.Warn().Stringer("waited", timeout).Msg("catalog: no answer from Consul yet")
	case <-ctx.Done():
	}
}
