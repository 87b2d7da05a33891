package gateway

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"sluice/config"
	"sluice/discovery/consul"
)

// finder finds services in Consul's catalog, as the configuration in use says.
// Its methods but found and status belong to the goroutine that reloads.
type finder struct {
	gateway *Gateway
	changed chan struct{} // capacity 1: there is something new in found
	first   chan struct{} // closed when what was found first is in use, or nothing is to be found

	selection *consul.Selection // what is looked for; nil: nothing
	stop      func()            // ends watch and waits for that
	skipped   []string          // names that cannot be used, as logged
	fault     string            // why what was found cannot be used, as logged; "": it is

	mu       sync.Mutex // guards the fields below
	watch    *consul.Catalog
	names    []string
	answered bool // names are Consul's
}

func newFinder(g *Gateway) *finder {
	return &finder{gateway: g, changed: make(chan struct{}, 1), first: make(chan struct{}), stop: func() {}}
}

// selectionOf returns what c wants to be found; nil: nothing.
func selectionOf(c *config.Config) *consul.Selection {
	if c.Catalog == nil {
		return nil
	}
	s := c.Catalog.Select.Selection()
	s.Datacenter = c.Consul.Datacenter
	s.Wait = c.Consul.Wait
	s.Probation = orNone(c.Consul.Probation)
	return &s
}

// expect makes names what was found, until Consul answers.
func (f *finder) expect(names []string) { f.names = names }

// follow finds what c wants to be found until ctx ends. What another
// configuration has found stays until Consul answers.
func (f *finder) follow(ctx context.Context, c *config.Config) {
	selection := selectionOf(c)
	if reflect.DeepEqual(selection, f.selection) {
		if selection == nil {
			f.settle()
		}
		return
	}
	f.stop()
	f.selection, f.stop = selection, func() {}
	if selection == nil {
		f.mu.Lock()
		f.watch, f.names = nil, nil
		f.mu.Unlock()
		f.settle()
		return
	}
	f.mu.Lock()
	watch := f.gateway.consul.Catalog(*selection, f.names...)
	f.watch = watch
	f.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := watch.Run(ctx, f.found); ctx.Err() == nil {
			f.gateway.log.Error().Err(err).Msg("catalog: no service is looked for any more")
		}
	})
	f.stop = func() {
		cancel()
		running.Wait()
	}
}

// found takes note of what Consul's catalog lists.
func (f *finder) found(services []consul.CatalogService) {
	names := make([]string, len(services))
	for n, s := range services {
		names[n] = s.Name
	}
	f.mu.Lock()
	f.names, f.answered = names, true
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// present returns the names of what was found, and whether Consul has answered.
func (f *finder) present() (names []string, answered bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.names, f.answered
}

// settle says that what was found first is in use.
func (f *finder) settle() {
	select {
	case <-f.first:
	default:
		close(f.first)
	}
}

// settled reports whether what was found first is in use.
func (f *finder) settled() bool {
	select {
	case <-f.first:
		return true
	default:
		return false
	}
}

// catalogStatus says how the watch of the catalog fares; false: there is none.
func (g *Gateway) catalogStatus() (consul.CatalogStatus, bool) {
	f := g.finder
	f.mu.Lock()
	watch := f.watch
	f.mu.Unlock()
	if watch == nil {
		return consul.CatalogStatus{}, false
	}
	return watch.Status(), true
}

// regroupRetry is how long it takes until what was found in the catalog and could
// not be used is tried again: a file that its services need may be there by then.
const regroupRetry = 5 * time.Second

// regroup puts to use what was found in the catalog since the last time, and
// reports whether that was possible.
func (g *Gateway) regroup(ctx context.Context) bool {
	defer func() {
		if _, answered := g.finder.present(); answered {
			g.finder.settle()
		}
	}()
	before := g.effective.Load()
	c := g.merge(g.history.Current().Config)
	added, gone := differentServices(before, c)
	if len(added)+len(gone) == 0 {
		g.finder.fault = ""
		return true
	}
	p, err := g.prepare(c)
	if err == nil {
		err = g.carryOut(ctx, p, c, false)
	}
	if err != nil {
		if fault := err.Error(); fault != g.finder.fault {
			g.finder.fault = fault
			g.log.Error().Err(err).Stringer("again_in", g.regroupRetry).Msg("catalog: what was found cannot be used")
		}
		return false
	}
	g.finder.fault = ""
	g.log.Info().Strs("added", added).Strs("gone", gone).Int("services", len(c.Services)).Msg("services found in the catalog")
	return true
}

// merge returns c with what was found in the catalog.
func (g *Gateway) merge(c *config.Config) *config.Config {
	names, _ := g.finder.present()
	merged, skipped := c.WithFound(names)
	if len(skipped) > 0 && !slices.Equal(skipped, g.finder.skipped) {
		g.log.Warn().Strs("services", skipped).Msg("catalog: these have names that cannot be used")
	}
	g.finder.skipped = skipped
	return merged
}

// differentServices returns the names of the services that only one of two
// configurations has, sorted.
func differentServices(before, now *config.Config) (added, gone []string) {
	for name := range now.Services {
		if _, ok := before.Services[name]; !ok {
			added = append(added, name)
		}
	}
	for name := range before.Services {
		if _, ok := now.Services[name]; !ok {
			gone = append(gone, name)
		}
	}
	slices.Sort(added)
	slices.Sort(gone)
	return added, gone
}

// awaitCatalog waits until what was found first is in use, for timeout at most.
func (g *Gateway) awaitCatalog(ctx context.Context, timeout time.Duration) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-g.finder.first:
	case <-timer.C:
		g.log.Warn().Stringer("waited", timeout).Msg("catalog: no answer from Consul yet")
	case <-ctx.Done():
	}
}
