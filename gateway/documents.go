package gateway

import (
	"context"
	"time"

	"sluice/config"
	"sluice/config/live"
)

// documentOptions returns what the documents of the configuration work with.
func (g *Gateway) documentOptions() live.Options {
	return live.Options{
		NewSource: g.newDocumentSource,
		Apply: func(ctx context.Context, c *config.Config) (*config.Config, error) {
			if err := g.apply(ctx, c); err != nil {
				return nil, err
			}
			g.finder.Follow(ctx, c)
			return g.effective.Load(), nil
		},
		Again:   g.applyFound,
		Applied: g.registerAs,
		Settled: func() { g.shares.Reconsider() },
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
	if err := g.accessLog.Load().Reopen(); err != nil {
		g.log.Error().Err(err).Msg("access log: cannot be opened again, the old file stays in use")
	}
	tokens := g.tokens.Load()
	if again, err := readTokens(tokens.operateFile, tokens.lookFile); err == nil {
		g.tokens.Store(again)
	} else {
		g.log.Error().Err(err).Msg("the tokens of the admin API cannot be read again: the old ones stay in use")
	}
	return func() { g.options.Systemd.Reloaded(g.status()) }
}

// awaitDocuments waits until what the dynamic sources say is in use, at most for timeout.
func (g *Gateway) awaitDocuments(ctx context.Context, timeout time.Duration) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-g.documents.Settled():
	case <-timer.C:
		g.log.Warn().Strs("missing", g.documents.Missing()).Stringer("waited", timeout).
			Msg("not all dynamic sources have answered: what they said last is in use")
	case <-ctx.Done():
	}
}

// newDocumentSource returns the source of a key of "dynamic".
func (g *Gateway) newDocumentSource(y config.Dynamic, before config.Source) live.Source {
	if kv := y.ConsulKV; kv != nil {
		return &live.ConsulKV{
			Client: g.consul, Name: y.Name(), Key: kv.Key, Prefix: kv.Prefix, AllowEmpty: kv.AllowEmpty, Before: before, Wait: g.consulWait,
		}
	}
	if y.Etcd != nil {
		return &live.Etcd{Clusters: g.etcd, Options: etcdCluster(y.Etcd.EtcdCluster), Spec: *y.Etcd, Name: y.Name(), Before: before, Log: g.log}
	}
	return &live.Files{Pattern: y.File, Problem: func(err error) {
		g.log.Warn().Err(err).Str("files", y.File).
			Msg("the file system does not report changes: sluice reads the files every 10 seconds")
	}}
}
