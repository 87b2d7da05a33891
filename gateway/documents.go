package gateway

import (
	"context"
	"maps"
	"slices"
	"time"

	"sluice/config"
	"sluice/config/chain"
	"sluice/config/live"
	"sluice/observe/events"
)

// applyFoundRetry is the time between two attempts to apply services, or a valid configuration,
// that cannot be used. A file that they lack may exist by then.
const applyFoundRetry = 5 * time.Second

// documentOptions returns what the documents of the configuration work with.
func (g *Gateway) documentOptions() live.Options {
	return live.Options{
		NewSource: g.registries.newDocumentSource,
		Apply: func(ctx context.Context, c *config.Config) (*config.Config, error) {
			if err := g.apply(ctx, c); err != nil {
				return nil, err
			}
			g.finder.Follow(ctx, c)
			return g.effective.Load(), nil
		},
		Again:   g.applyFound,
		Applied: func(r config.Revision) { g.replica.registerAs(r) },
		Settled: func() { g.shares.EndOutdated() },
		Reload:  g.reopen,
		Order:   g.owner.Order,
		Events:  g.events,
		Log:     g.log,
	}
}

// followDocuments follows the documents and the catalog until ctx ends.
func (g *Gateway) followDocuments(ctx context.Context) {
	defer g.finder.Stop()
	g.finder.Follow(ctx, g.history.Current().Config)
	g.documents.Run(ctx, g.waits.warm, g.waits.applyFound)
}

// Reload requests that the configuration is loaded again and applied: see live.Manager.Reload. It
// also opens the file of the access log again, and reads the tokens of the admin API again.
func (g *Gateway) Reload() { g.documents.Reload() }

// reopen opens again what a reload opens beside the configuration, and tells systemd of the reload.
func (g *Gateway) reopen() (done func()) {
	g.options.Systemd.Reloading()
	g.requestLog.reopen()
	g.admin.reopen()
	return func() { g.options.Systemd.Reloaded(g.readiness.status()) }
}

// applyFound applies c, the configuration of the documents in use, with the services found in the
// catalog and the given shares of now, and reports whether it succeeded.
func (g *Gateway) applyFound(ctx context.Context, c *config.Config) bool {
	before := g.effective.Load()
	err := g.apply(ctx, c)
	g.finder.Applied(err, g.waits.applyFound)
	if err != nil {
		g.tags.Release()
		return false
	}
	now := g.effective.Load()
	added, removed := onlyIn(now, before), onlyIn(before, now)
	if len(added)+len(removed) > 0 {
		g.log.Info().Strs("added", added).Strs("gone", removed).Int("services", len(now.Services)).Msg("services found in the catalog")
	}
	for _, name := range added {
		g.events.Add(events.Event{Kind: events.KindAdded, Service: name, Text: "The service " + name + " was found in Consul's catalog"})
	}
	for _, name := range removed {
		g.events.Add(events.Event{Kind: events.KindRemoved, Service: name, Text: "The service " + name + " is not in Consul's catalog any more"})
	}
	if !g.documents.Paused() { // else a new process has the history
		g.shares.Record(func(reason string, diff []config.Change) { g.history.RecordShares(reason, diff) })
	}
	return true
}

// onlyIn returns the names of the services that a has and b does not, sorted.
func onlyIn(a, b *config.Config) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(a.Services)), func(name string) bool {
		_, ok := b.Services[name]
		return ok || chain.IsDerived(name)
	})
}
