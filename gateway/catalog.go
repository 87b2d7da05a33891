package gateway

import (
	"context"
	"slices"
	"time"

	"sluice/config"
	"sluice/observe/events"
)

// applyFoundRetry is the time between two attempts to apply services, or a valid configuration, that
// cannot be used. A file that they lack may exist by then.
const applyFoundRetry = 5 * time.Second

// applyFound applies c, the configuration of the documents in use, with the services found in the catalog and
// the given shares of now, and reports whether it succeeded.
func (g *Gateway) applyFound(ctx context.Context, c *config.Config) bool {
	before := g.effective.Load()
	err := g.apply(ctx, c)
	g.finder.Applied(err, g.waits.applyFound)
	if err != nil {
		g.tags.Release()
		return false
	}
	now := g.effective.Load()
	if added, removed := onlyIn(now, before), onlyIn(before, now); len(added)+len(removed) > 0 {
		g.log.Info().Strs("added", added).Strs("gone", removed).Int("services", len(now.Services)).Msg("services found in the catalog")
		g.emitFound(added, removed)
	}
	if !g.documents.Paused() { // else a new process has the history
		g.shares.Record(func(reason string, diff []config.Change) { g.history.Given(reason, diff) })
	}
	return true
}

// emitFound adds to the feed which services Consul's catalog has and has no more.
func (g *Gateway) emitFound(added, removed []string) {
	for _, name := range added {
		g.events.Add(events.Event{Kind: events.KindAdded, Service: name, Text: "The service " + name + " was found in Consul's catalog"})
	}
	for _, name := range removed {
		g.events.Add(events.Event{Kind: events.KindRemoved, Service: name, Text: "The service " + name + " is not in Consul's catalog any more"})
	}
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
	case <-g.finder.Used():
	case <-timer.C:
		g.log.Warn().Stringer("waited", timeout).Msg("catalog: no answer from Consul yet")
	case <-ctx.Done():
	}
}
