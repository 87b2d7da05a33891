package catalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/discovery"
	"sluice/observe/panics"
	"sluice/tags/claim"
)

// Gate passes the sets of a service to its pool, at once. Only instances whose tags ask for
// other routes than those in use wait, until the [Reader] uses their routes. So an instance gets
// no request by a route that it did not ask for: routes change first, then requests go to the
// instances with the new tags. Until then a pool keeps the instances that it had.
//
// No method waits for the reading of tags. They may be called concurrently.
type Gate struct {
	apply   func(set discovery.Set, whole bool) // of the pool; whole: it is the latest set
	changed func()                              // requests that the configuration is applied again
	waiting *waiting

	mu sync.Mutex // guards the fields below, and is held while sets are passed to the pool

	reader    claim.Reader         // of the configuration in use
	leads     bool                 // the service has one leader, by that configuration
	known     bool                 // there is a set
	latest    discovery.Set        // without its instances
	set       []discovery.Instance // of the latest
	passed    []discovery.Instance // what the pool has
	profile   string               // of set, for comparison
	used      map[string]bool      // profiles of instances for which there are routes
	divides   bool                 // a route in use leads to some of the instances only
	divided   bool                 // it was so when used was
	waits     bool                 // set has profiles for which there are no routes yet
	kept      []discovery.Instance // that passed has beside set
	version   uint64               // of set and kept
	afterSwap bool                 // requests may be on former routes: the pool stays until then
	until     time.Time
	ended     bool // the service is gone: it waits for nothing
}

// routeSwapDelay is how long a pool stays as it is after its routes have changed: longer than a
// request is between its route and its peer.
const routeSwapDelay = 100 * time.Millisecond

// seen is what a gate has seen last.
type seen struct {
	set     []discovery.Instance
	kept    []discovery.Instance // in the pool beside set; nobody asks for their routes any more
	profile string               // of set
	waits   bool                 // for routes that are not in use yet
	version uint64               // of set and kept: another one for others
}

func (g *Gate) seen() seen {
	g.mu.Lock()
	defer g.mu.Unlock()
	return seen{g.set, g.kept, g.profile, g.waits, g.version}
}

// Pass passes a set to the pool, at once or after there are routes for its tags. The set must not
// be changed afterwards.
func (g *Gate) Pass(set discovery.Set) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.latest, g.set, g.known = discovery.Set{Service: set.Service, Source: set.Source}, set.Instances, true
	g.version++
	if profile := profileOf(g.reader, g.set); profile != g.profile {
		g.profile, g.afterSwap = profile, false
		g.waitLocked(true)
		g.changed()
	}
	g.passLocked()
}

// lead sets whether the service has one leader.
func (g *Gate) lead(leads bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leads = leads
}

// read sets the reader of the configuration in use. The instances wait for routes that it reads.
func (g *Gate) read(reader claim.Reader) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reader, g.used, g.afterSwap = reader, nil, false
	g.profile = profileOf(reader, g.set)
	g.waitLocked(g.known)
}

// waitLocked records whether the tags of the set have no effect yet.
func (g *Gate) waitLocked(waits bool) {
	waits = waits && !g.ended
	if g.waits != waits {
		g.waits = waits
		g.waiting.count(waits)
	}
}

// passLocked passes the latest set to the pool, or what of it can be used with the present routes.
func (g *Gate) passLocked() {
	set := g.set
	if g.kept != nil {
		g.kept = nil
		g.version++
	}
	whole := !g.waits && !g.afterSwap || len(g.used) == 0
	if !whole {
		set = g.usableLocked()
	}
	g.applyLocked(set, whole)
}

// applyLocked passes instances of the latest set to the pool.
func (g *Gate) applyLocked(instances []discovery.Instance, whole bool) {
	g.passed = instances
	set := g.latest
	set.Instances = instances
	g.apply(set, whole)
}

// usableLocked returns the latest set without instances whose tags have no routes yet; those that
// the pool has stay as they were. If no instance with the same tags is usable any more, the pool's
// stay, because their routes need peers. That does not hold if all instances have the same routes,
// nor for a service with a leader, whose former one must get nothing.
func (g *Gate) usableLocked() []discovery.Instance {
	before := make(map[discovery.Key]*discovery.Instance, len(g.passed))
	for i := range g.passed {
		before[g.passed[i].Key()] = &g.passed[i]
	}
	set := make([]discovery.Instance, 0, len(g.set))
	served := make(map[string]bool)
	for _, i := range g.set {
		if !g.used[g.reader.Profile(&i)] {
			old := before[i.Key()]
			if old == nil {
				continue
			}
			i.Tags, i.Meta, i.Kind = old.Tags, old.Meta, old.Kind
		}
		if i.Usable() {
			served[g.reader.Profile(&i)] = true
		}
		set = append(set, i)
	}
	if !slices.ContainsFunc(g.set, discovery.Instance.Usable) {
		return g.set // there is nothing to wait for
	}
	for i := range g.passed {
		old := &g.passed[i]
		if g.leads || !old.Usable() || served[g.reader.Profile(old)] || !g.divided && len(served) > 0 {
			continue
		}
		g.kept = append(g.kept, *old)
		g.version++
	}
	return with(set, g.kept)
}

// with returns set with the instances of kept, also in place of instances with the same keys.
func with(set, kept []discovery.Instance) []discovery.Instance {
	if len(kept) == 0 {
		return set
	}
	all, stays := slices.Clone(kept), make(map[discovery.Key]bool, len(kept))
	for i := range kept {
		stays[kept[i].Key()] = true
	}
	for i := range set {
		if !stays[set[i].Key()] {
			all = append(all, set[i])
		}
	}
	return discovery.Normalize(all)
}

// markRouted says that the routes for a profile are in use. The instances that have waited for them
// are passed after routeSwapDelay. divides says that a route leads to only some of the instances.
func (g *Gate) markRouted(profile string, divides bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.divides, g.divided = divides, g.divided || divides
	if !g.waits {
		return
	}
	if g.profile != profile {
		g.changed() // Pass may have had the set before the reader that has found this profile
		return
	}
	g.waitLocked(false)
	if len(g.used) == 0 {
		g.useLocked()
		g.passLocked()
		return
	}
	g.afterSwap, g.until = true, time.Now().Add(routeSwapDelay)
	time.AfterFunc(routeSwapDelay, func() {
		defer panics.Contain(panics.Task, nil)
		g.passAlone()
	})
}

// useLocked records the profiles for which there are routes.
func (g *Gate) useLocked() {
	g.used, g.divided = make(map[string]bool), g.divides
	for i := range g.set {
		if profile := g.reader.Profile(&g.set[i]); profile != "" || g.profile != "" {
			g.used[profile] = true
		}
	}
}

// passAlone is passSettled while no instance is kept. Else routes lead to the kept instances, until
// the configuration is applied, which it asks for.
func (g *Gate) passAlone() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.kept) > 0 {
		g.changed()
	} else {
		g.passSettledLocked()
	}
}

// passSettled passes the latest set if its routes have been in use for long enough. Routes of
// instances that are no longer kept must then be resolved again.
func (g *Gate) passSettled() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passSettledLocked()
}

func (g *Gate) passSettledLocked() {
	if !g.afterSwap || time.Now().Before(g.until) {
		return
	}
	g.afterSwap = false
	g.useLocked()
	if len(g.kept) > 0 {
		g.waitLocked(true)
	}
	g.kept = nil
	g.version++
	g.applyLocked(g.set, true)
}

// release passes the instances that wait, because their routes cannot be used for now.
func (g *Gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waits || g.afterSwap {
		used := g.used
		g.used = nil
		g.passLocked()
		g.used = used
	}
}

// end ends the wait for routes, also of sets that are passed later: the service is gone.
func (g *Gate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended, g.afterSwap = true, false
	g.waitLocked(false)
}

// profileOf returns the profiles of a set as a text. If there are several, it has who decides
// between them: see claim.Age.
func profileOf(reader claim.Reader, set []discovery.Instance) string {
	ages := make(map[string]claim.Age)
	for i := range set {
		profile, one := reader.Profile(&set[i]), claim.AgeOf(&set[i])
		if known, again := ages[profile]; !again || one.Before(known) {
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
		fmt.Fprintf(&b, "%v %s\n", ages[profile], profile)
	}
	return b.String()
}

// waiting counts the gates whose tags have no effect yet. It is safe for concurrent use.
type waiting struct {
	mu    sync.Mutex // guards the fields below
	gates int
	quiet chan struct{} // closed when gates is 0; nil: it has never been more
}

// count counts a gate that begins to wait, or one that ends.
func (w *waiting) count(begins bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if begins {
		if w.gates++; w.gates == 1 {
			w.quiet = make(chan struct{})
		}
	} else if w.gates--; w.gates == 0 {
		close(w.quiet)
	}
}

// await waits until no gate waits, at most for timeout.
func (w *waiting) await(ctx context.Context, timeout time.Duration) {
	quiet := w.latest()
	if quiet == nil {
		return
	}
	select {
	case <-quiet:
	case <-time.After(timeout):
	case <-ctx.Done():
	}
}

func (w *waiting) latest() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.quiet
}
