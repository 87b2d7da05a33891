package gateway

import (
	"context"
	"reflect"
	"strings"
	"time"

	"sluice/config"
)

// Reload requests that the configuration is loaded again and applied. After an error nothing
// changes, and the log, the admin API and a metric report it. A reload also opens the file
// of the access log again, and reads the admin token again.
//
// Reload does not wait for the reload, which may take seconds until new services have peers.
// Requests during a reload cause one more reload.
func (g *Gateway) Reload() {
	select {
	case g.reload <- struct{}{}:
	default: // a requested reload has not begun, and will read the latest file
	}
}

// reloads carries out requested reloads, and applies changes of the catalog, one at a time,
// until ctx ends.
func (g *Gateway) reloads(ctx context.Context) {
	defer func() { g.finder.stop() }()
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		g.finder.follow(ctx, g.history.Current().Config)
		select {
		case <-g.reload:
			g.reloadNow(ctx)
			continue
		case <-g.finder.changed:
		case <-retry.C:
		case <-ctx.Done():
			return
		}
		if g.applyFound(ctx) {
			retry.Stop()
		} else {
			retry.Reset(g.waits.applyFound)
		}
	}
}

func (g *Gateway) reloadNow(ctx context.Context) {
	if err := g.accessLog.Load().Reopen(); err != nil {
		g.log.Error().Err(err).Msg("access log: cannot be opened again, the old file stays in use")
	}
	if token, err := readToken(g.token.Load().file); err == nil {
		g.token.Store(token)
	} else {
		g.log.Error().Err(err).Msg("admin token: cannot be read again, the old one stays in use")
	}
	revision, err := g.options.Input.Load()
	if err == nil {
		err = g.use(ctx, revision)
	}
	if err != nil {
		g.refuse(err)
	}
}

// refuse logs and records that the configuration was not applied.
func (g *Gateway) refuse(err error) {
	source := g.options.Input.Source()
	g.history.Refused(source, err)
	g.log.Error().Str("source", source).Strs("errors", strings.Split(err.Error(), "\n")).
		Uint64("in_use", g.history.Current().Number).Msg("configuration refused, the one in use stays")
}

// warn logs the keys of earlier versions in r.
func (g *Gateway) warn(r *config.Revision) {
	if len(r.Warnings) > 0 {
		g.log.Warn().Str("source", r.Source).Strs("keys", r.Warnings).Msg("the configuration has keys of an earlier version")
	}
}

// use applies a revision, but not the first.
func (g *Gateway) use(ctx context.Context, r *config.Revision) error {
	g.warn(r)
	if reflect.DeepEqual(r.Config, g.history.Current().Config) {
		g.history.Unchanged(r.Hash)
		g.registerAs(g.history.Current())
		g.log.Info().Str("source", r.Source).Msg("configuration unchanged")
		return nil
	}
	if err := g.apply(ctx, r.Config); err != nil {
		return err
	}
	r.Pending = config.NeedRestart(g.started, r.Config)
	applied, effective := g.history.Applied(*r), g.effective.Load()
	g.registerAs(applied)
	g.log.Info().Uint64("number", applied.Number).Str("source", r.Source).Str("hash", r.Hash).
		Int("services", len(effective.Services)).Int("routes", len(effective.Routes)).Msg("configuration applied")
	for _, key := range r.Pending {
		g.log.Warn().Str("key", key).Str("reason", config.RestartReason(key)).Msg("the new value of this key takes effect at the next start")
	}
	return nil
}
