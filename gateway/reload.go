package gateway

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"time"

	"sluice/config"
)

// Reload asks for the configuration to be loaded again and put to use. If that
// is not possible, everything stays as it is, and the log, the admin API and a
// metric say why. The access log's file is opened and the admin token read
// again, too.
//
// Reload does not wait: a reload may take some seconds, while new services look
// for their first peers. What is asked for meanwhile is one more reload.
func (g *Gateway) Reload() {
	select {
	case g.reload <- struct{}{}:
	default: // one is waiting already, and will see the latest file
	}
}

// reloads does what Reload asks for, and puts to use what is found in the
// catalog, one after the other, until ctx ends.
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
		if g.regroup(ctx) {
			retry.Stop()
		} else {
			retry.Reset(g.regroupRetry)
		}
	}
}

func (g *Gateway) reloadNow(ctx context.Context) {
	if err := g.accessLog.Reopen(); err != nil {
		g.log.Error().Err(err).Msg("access log: cannot open it again, going on with the old file")
	}
	if err := g.readToken(); err != nil {
		g.log.Error().Err(err).Msg("admin token: cannot read it again, going on with the old one")
	}
	revision, err := g.options.Input.Load()
	if err == nil {
		err = g.use(ctx, revision)
	}
	if err != nil {
		g.refuse(err)
	}
}

// refuse says that the configuration was not applied.
func (g *Gateway) refuse(err error) {
	source := g.options.Input.Source()
	g.history.Refused(source, err)
	lines := strings.Split(err.Error(), "\n")
	var mistakes config.Errors
	if errors.As(err, &mistakes) {
		lines = lines[:0]
		for _, mistake := range mistakes {
			lines = append(lines, mistake.Error())
		}
	}
	g.log.Error().Str("source", source).Strs("errors", lines).
		Uint64("kept", g.history.Current().Number).Msg("configuration refused, the one in use stays")
}

// warn logs what is accepted in r and has no effect any more.
func (g *Gateway) warn(r *config.Revision) {
	if len(r.Warnings) > 0 {
		g.log.Warn().Str("source", r.Source).Strs("keys", r.Warnings).Msg("the configuration has keys without effect")
	}
}

// use puts a revision to use after the first one.
func (g *Gateway) use(ctx context.Context, r *config.Revision) error {
	g.warn(r)
	if reflect.DeepEqual(r.Config, g.history.Current().Config) {
		g.history.Unchanged(r.Hash)
		g.registerAs(g.history.Current())
		g.log.Info().Str("source", r.Source).Msg("configuration unchanged")
		return nil
	}
	c := g.merge(r.Config)
	p, err := g.prepare(c)
	if err != nil {
		return err
	}
	if err := g.carryOut(ctx, p, c, true); err != nil {
		return err
	}
	g.logs.set(r.Config.Log)
	r.Pending = config.NeedRestart(g.started, r.Config)
	applied := g.history.Applied(*r)
	g.registerAs(applied)
	g.log.Info().Uint64("number", applied.Number).Str("source", r.Source).Str("hash", r.Hash).
		Int("services", len(c.Services)).Int("routes", len(c.Routes)).Msg("configuration applied")
	if len(r.Pending) > 0 {
		g.log.Warn().Strs("keys", r.Pending).Msg("these keys keep their old values until sluice is restarted")
	}
	return nil
}
