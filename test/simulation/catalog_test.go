package simulation

import (
	"cmp"
	"context"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
)

// catalog finds services in a Consul, like package gateway. A found service is added, and one
// that is no longer found is removed.
type catalog struct {
	w         *world
	consul    *consul
	selection consulsource.Selection
	probation time.Duration
	stop      func() // ends watch and waits for that

	// w.mu guards the fields below.

	found  []string // by watch
	news   bool     // in found
	wanted map[*registry]*wanted
}

// wanted is the model of a service in the catalog.
type wanted struct {
	listed bool      // an instance of it is selected
	since  time.Time // when that began to be so, or not to be so
	seen   time.Time // when it was last listed for so long that it was seen
}

var possibleSelections = []consulsource.Selection{
	{},
	{Name: "app-*"},
	{Name: "app-[13]"},
	{Tag: "main"},
	{Meta: map[string]string{"zone": "a"}},
	{Name: "app-?", Tag: "canary"},
}

func newCatalog(w *world) *catalog {
	c := &catalog{w: w, consul: newConsul(w), selection: possibleSelections[0], stop: func() {}, wanted: make(map[*registry]*wanted)}
	for _, name := range []string{"app-1", "app-2", "app-3"} {
		r := newRegistry(w, name, c.consul)
		r.catalog = c
		w.registries = append(w.registries, r)
		c.wanted[r] = &wanted{since: time.Now()}
		for range w.random.IntN(3) {
			r.register()
		}
	}
	c.follow(c.drawSelection(), c.drawProbation())
	return c
}

func (c *catalog) drawSelection() consulsource.Selection {
	return pick(c.w.random, possibleSelections...)
}

func (c *catalog) drawProbation() time.Duration {
	if c.w.random.IntN(4) == 0 {
		return 0
	}
	return c.w.upTo(8 * time.Second)
}

// follow changes the selection. The services found before stay until Consul answers.
func (c *catalog) follow(s consulsource.Selection, probation time.Duration) {
	c.stop()
	c.w.mu.Lock()
	c.selection, c.probation = s, probation
	c.selection.Probation, c.selection.Wait = probation, time.Minute
	c.w.logf("catalog: looks for %+v", c.selection)
	for _, r := range c.consul.registries {
		wanted := c.wanted[r]
		wanted.listed, wanted.since, wanted.seen = c.selects(r), time.Now(), time.Time{}
		if slices.Contains(c.found, r.name) && c.names(r) {
			wanted.seen = time.Now() // it stays as if it had been listed
		}
	}
	known := make([]consulsource.CatalogService, len(c.found))
	for i, name := range c.found {
		known[i].Name = name
	}
	watch := c.consul.sources.Catalog(c.selection, known...)
	c.w.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { watch.Run(ctx, c.note) })
	c.stop = func() {
		cancel()
		running.Wait()
	}
}

func (c *catalog) note(services []consulsource.CatalogService) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.found, c.news = nil, true
	for _, s := range services {
		c.found = append(c.found, s.Name)
	}
	c.w.logf("catalog: found %s", strings.Join(c.found, " "))
}

func (c *catalog) selects(r *registry) bool {
	want := balancer.Selector{Meta: c.selection.Meta}
	if c.selection.Tag != "" {
		want.Tags = []string{c.selection.Tag}
	}
	return c.names(r) && slices.ContainsFunc(r.entries, func(i discovery.Instance) bool { return meets(i, want) })
}

func (c *catalog) names(r *registry) bool {
	matches, _ := path.Match(cmp.Or(c.selection.Name, "*"), r.name)
	return matches
}

// changedLocked records a change of a registry.
func (c *catalog) changedLocked(r *registry) {
	if w := c.wanted[r]; w != nil && w.listed != c.selects(r) {
		w.listed, w.since = !w.listed, time.Now()
	}
}

// applyFound applies the found services, and reports whether they have changed.
func (c *catalog) applyFound() bool {
	c.w.mu.Lock()
	news, found := c.news, c.found
	c.news = false
	c.w.mu.Unlock()
	if !news {
		return false
	}
	for _, r := range c.consul.registries {
		n := slices.IndexFunc(c.w.services, func(s *service) bool { return s.registry == r })
		switch wanted := slices.Contains(found, r.name); {
		case wanted && n < 0:
			c.w.count("service found")
			c.checkFound(r)
			c.w.services = append(c.w.services, c.w.newService(r))
		case !wanted && n >= 0:
			c.w.count("service not listed any more")
			c.checkGone(r)
			c.w.retire(c.w.services[n])
			c.w.services = slices.Delete(c.w.services, n, n+1)
		}
	}
	return true
}

// look is the time for a query of the catalog.
const look = time.Second

// checkFound: a service is added only if it is listed, or was until recently.
func (c *catalog) checkFound(r *registry) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if w := c.wanted[r]; !w.listed && time.Since(w.since) > look {
		c.w.violateLocked("%s: found, though it has not been listed for %v", r.name, time.Since(w.since))
	}
}

// checkGone: a service is removed only if it was not listed during its whole probation, and
// never while Consul fails or hides services. One whose name is not selected any more goes at once.
func (c *catalog) checkGone(r *registry) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if !c.names(r) {
		return
	}
	f, now := c.consul.fault, time.Now()
	if f.what != "" && !f.lies && c.consul.felt && now.Sub(c.consul.since) > look {
		c.w.violateLocked("%s: given up, while Consul %s for %v", r.name, f.what, now.Sub(c.consul.since))
	}
	w := c.wanted[r]
	if f.what != "" && !f.lies && w.listed && w.since.Before(c.consul.since) && c.consul.since.Sub(w.seen) < look {
		c.w.violateLocked("%s: given up, though it was seen before Consul %s", r.name, f.what)
	}
	if now.Sub(w.seen) < c.probation-look && !c.consul.liedSince(now.Add(-c.probation)) {
		c.w.violateLocked("%s: given up %v after it was listed, want %v", r.name, now.Sub(w.seen), c.probation)
	}
}

// checkLocked: while Consul works, listed services are in use, and others are not after their
// probation.
func (c *catalog) checkLocked() {
	since, solid := c.consul.solid()
	for _, r := range c.consul.registries {
		w := c.wanted[r]
		from := w.since
		if from.Before(since) {
			from = since
		}
		lasting := solid && time.Since(from) > look
		if w.listed && lasting {
			w.seen = time.Now()
		}
		_, used := c.w.byName[r.name]
		switch {
		case w.listed && lasting && !used:
			c.w.violateLocked("%s: not found, though it is listed for %v", r.name, time.Since(from))
		case !w.listed && solid && time.Since(from) > max(c.probation, 0)+look && used:
			c.w.violateLocked("%s: in use, though it is not listed for %v", r.name, time.Since(from))
		}
	}
}

// loseSight removes a service from the catalog just before Consul fails for longer than its
// probation, and may add it again during the fault.
func (c *catalog) loseSight() {
	const probation = 5 * time.Second
	w, random := c.w, c.w.random
	c.follow(possibleSelections[0], probation)
	r := c.consul.registries[random.IntN(len(c.consul.registries))]
	r.register()
	w.pass(2 * look)
	r.clear()
	w.pass(look)
	f := pick(random, faults...)
	for f.lies || f.silent || f.how.Status == http.StatusTooManyRequests {
		f = pick(random, faults...)
	}
	w.mu.Lock()
	c.consul.becomeLocked(f)
	w.mu.Unlock()
	w.pass(2 * probation)
	c.expect(r, true, "while Consul "+f.what)
	back := random.IntN(2) == 0
	if back {
		r.register()
	}
	c.consul.heal()
	w.pass(probation - look)
	c.expect(r, true, "as soon as Consul works")
	w.pass(hungRecovery + probation)
	c.expect(r, back, "in the end")
	w.count("lost sight of a service")
}

// expect fails unless the service is in use, or not.
func (c *catalog) expect(r *registry, want bool, when string) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if _, used := c.w.byName[r.name]; used != want {
		c.w.violateLocked("%s: in use: %v, %s", r.name, used, when)
	}
}
