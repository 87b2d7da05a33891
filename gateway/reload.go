package gateway

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"sluice/config"
	"sluice/observe/events"
)

// Reload requests that the configuration is loaded again and applied. After an error nothing
// changes, and the log, the admin API and a metric report it. A reload also opens the file
// of the access log again, and reads the tokens of the admin API again.
//
// Reload does not wait for the reload, which may take seconds until new services have peers.
// Requests during a reload cause one more reload.
func (g *Gateway) Reload() {
	select {
	case g.reload <- struct{}{}:
	default: // a requested reload has not begun, and will read the latest file
	}
}

// reloads carries out requested reloads and orders, and applies changes of the dynamic sources
// and of the catalog, one at a time, until ctx ends.
func (g *Gateway) reloads(ctx context.Context) {
	defer func() { g.finder.stop() }()
	defer g.documents.end()
	retry := time.NewTimer(0)
	defer retry.Stop()
	var again <-chan time.Time // nil: nothing is unusable
	for {
		if again == nil && g.unusable {
			again = time.After(g.waits.applyFound)
		}
		g.finder.follow(ctx, g.history.Current().Config)
		g.followDocuments(ctx)
		select {
		case <-g.reload:
			g.reloadNow(ctx)
			continue
		case <-g.documents.changed:
			g.consider(ctx, false)
			continue
		case <-again:
			again = nil
			g.consider(ctx, false)
			continue
		case o := <-g.rollbacks:
			o.carryOut(ctx)
			continue
		case <-g.finder.changed:
		case <-g.shares.changed:
		case <-retry.C:
		case <-ctx.Done():
			return
		}
		if g.applyFound(ctx) {
			g.recordShares()
			retry.Stop()
		} else {
			retry.Reset(g.waits.applyFound)
		}
	}
}

func (g *Gateway) reloadNow(ctx context.Context) {
	g.options.Systemd.Reloading()
	defer func() { g.options.Systemd.Reloaded(g.status()) }()
	if err := g.accessLog.Load().Reopen(); err != nil {
		g.log.Error().Err(err).Msg("access log: cannot be opened again, the old file stays in use")
	}
	tokens := g.tokens.Load()
	if again, err := readTokens(tokens.operateFile, tokens.lookFile); err == nil {
		g.tokens.Store(again)
	} else {
		g.log.Error().Err(err).Msg("the tokens of the admin API cannot be read again: the old ones stay in use")
	}
	g.notes = "" // who asks for a reload sees the warnings again
	if g.readFile() {
		g.followDocuments(ctx)
		if silent := g.documents.await(ctx, g.waits.warm); len(silent) > 0 {
			g.log.Warn().Strs("sources", silent).Stringer("waited", g.waits.warm).Msg("dynamic sources have not answered yet")
		}
	}
	g.documents.reread()
	g.consider(ctx, true)
}

// readFile reads the configuration file, and reports whether it names other dynamic sources
// than before.
func (g *Gateway) readFile() (others bool) {
	text, err := g.options.Input.Read()
	if g.fileErr = err; err != nil {
		return false
	}
	file := g.options.Input.FileSource(text)
	if file.Revision == g.file.Revision {
		return false
	}
	g.file = file
	built, err := g.options.Input.Build([]config.Source{file})
	if err != nil {
		return false
	}
	if g.alone = built; reflect.DeepEqual(built.Config.Dynamic, g.offered) {
		return false
	}
	g.offered = built.Config.Dynamic
	return true
}

// followDocuments follows the dynamic sources that the file names, and those in use.
func (g *Gateway) followDocuments(ctx context.Context) {
	current := g.history.Current()
	g.documents.follow(ctx, slices.Concat(g.offered, current.Config.Dynamic), current.Sources)
	g.settle(ctx)
}

// settle closes settled once all dynamic sources have reported and nothing waits to be
// applied.
func (g *Gateway) settle(ctx context.Context) {
	if !closed(g.settled) && len(g.documents.changed) == 0 && len(g.documents.await(ctx, 0)) == 0 {
		close(g.settled)
		g.shares.reconsider()
	}
}

// awaitDocuments waits until what the dynamic sources say is in use, at most for timeout.
func (g *Gateway) awaitDocuments(ctx context.Context, timeout time.Duration) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-g.settled:
	case <-timer.C:
		g.log.Warn().Strs("missing", g.documents.missing(g.history.Current().Sources)).Stringer("waited", timeout).
			Msg("not all dynamic sources have answered: what they said last is in use")
	case <-ctx.Done():
	}
}

// consider applies what the file and the dynamic sources say, as far as it is valid. With
// reload, somebody has asked for it.
func (g *Gateway) consider(ctx context.Context, reload bool) {
	alone := g.alone
	g.alone = nil
	if g.documents.isPaused() {
		return // a new process takes over
	}
	current := g.history.Current()
	used, number := current.Sources, current.Number
	g.unusable = false
	latest := slices.Insert(g.documents.latest(), 0, g.file)
	errs := config.Choose(config.Wanted(latest, used), used, func(sources []config.Source) (err error) {
		built := alone
		if alone == nil || len(sources) > 1 || sources[0].Pin != nil {
			if built, err = g.options.Input.Build(sources); err != nil {
				return err
			}
		}
		err = g.use(ctx, built, sources, "")
		g.unusable = g.unusable || err != nil
		return err
	})
	if reload && len(errs) == 0 && g.fileErr == nil && g.history.Current().Number == number {
		g.log.Info().Str("source", g.options.Input.Source()).Msg("configuration unchanged")
	}
	if g.fileErr != nil {
		errs = maps.Clone(errs)
		if errs == nil {
			errs = make(map[string]error)
		}
		errs[g.file.Name] = g.fileErr
	}
	g.refuse(errs, reload)
}

// refuse logs and records what sources offer and is not used. What was refused before for the
// same reason is told again only if it is the file, after a request to reload it.
func (g *Gateway) refuse(errs map[string]error, reload bool) {
	told := g.refusals.set(errs)
	if reload && errs[g.file.Name] != nil && !slices.Contains(told, g.file.Name) {
		told = append(told, g.file.Name)
	}
	for _, source := range told {
		g.history.Refused(source, errs[source])
		g.log.Error().Str("source", source).Strs("errors", strings.Split(errs[source].Error(), "\n")).
			Uint64("in_use", g.history.Current().Number).Msg("configuration refused, the one in use stays")
		g.events.Add(events.Event{Kind: events.KindRejected, Level: events.Warning, Revision: g.history.Current().Number,
			Text: fmt.Sprintf("The configuration was refused, revision %d stays in use: %s", g.history.Current().Number, strings.ReplaceAll(errs[source].Error(), "\n", "; "))})
	}
	g.history.Stand(g.refusals.standing()...)
}

// warn logs keys under another name, and what sources with precedence hide, once.
func (g *Gateway) warn(b *config.Built) {
	notes := fmt.Sprint(b.Warnings, b.Shadowed)
	if notes == g.notes {
		return
	}
	g.notes = notes
	if len(b.Warnings) > 0 {
		g.log.Warn().Str("source", g.options.Input.Source()).Strs("keys", b.Warnings).Msg("the configuration has keys with a newer name")
	}
	for _, shadowed := range b.Shadowed {
		g.log.Warn().Err(shadowed).Msg("a part of the configuration is not used")
	}
}

// use applies a configuration, but not the first. reason is why; empty: its sources have
// changed.
func (g *Gateway) use(ctx context.Context, b *config.Built, sources []config.Source, reason string) error {
	current := g.history.Current()
	sources = b.Config.Named(sources)
	g.warn(b)
	released := config.Released(current.Sources, sources)
	if err := g.apply(ctx, b.Config); err != nil {
		return err
	}
	if reason == "" && len(released) == 0 && config.Equal(b.Config, current.Config) {
		g.history.Unchanged(sources)
		return nil
	}
	switch changed := config.Changed(current.Sources, sources); {
	case reason != "":
	case len(released) > 0:
		reason = "pin released: " + strings.Join(released, ", ")
	default:
		reason = "changed: " + strings.Join(changed, ", ")
	}
	g.record(b, sources, reason)
	return nil
}

// record adds a configuration that is in use to the history.
func (g *Gateway) record(b *config.Built, sources []config.Source, reason string) {
	r := g.revision(b, sources, reason)
	r.Diff = config.Summary(g.history.Current().Config, b.Config)
	r.Pending = config.NeedRestart(g.started, b.Config)
	if g.documents.isPaused() {
		return // the new process has the history; if it does not serve, this one reloads
	}
	applied, effective := g.history.Applied(r), g.effective.Load()
	g.registerAs(applied)
	g.log.Info().Uint64("number", applied.Number).Str("source", r.Source).Str("reason", reason).Str("hash", r.Hash).
		Int("services", len(effective.Services)).Int("routes", len(effective.Routes)).Msg("configuration applied")
	g.tellApplied(applied)
	for _, key := range r.Pending {
		g.log.Warn().Str("key", key).Str("reason", config.RestartReason(key)).Msg("the new value of this key takes effect at the next start")
	}
}

// tellApplied adds the application of a revision to the feed.
func (g *Gateway) tellApplied(r config.Revision) {
	text := fmt.Sprintf("Revision %d of the configuration was applied: %s", r.Number, r.Reason)
	if len(r.Diff) > 0 {
		text += fmt.Sprintf(", differences: %d", len(r.Diff))
	}
	g.events.Add(events.Event{Kind: events.KindApplied, Revision: r.Number, Text: text})
}

// revision returns a revision that is not applied yet.
func (g *Gateway) revision(b *config.Built, sources []config.Source, reason string) config.Revision {
	return config.Revision{Source: g.options.Input.Source(), Hash: b.Hash(), Reason: reason, Sources: sources, Config: b.Config}
}
