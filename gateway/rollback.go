package gateway

import (
	"context"
	"fmt"
	"strings"

	"sluice/admin"
	"sluice/config"
	"sluice/observe/events"
)

// order is an order of an operator about the configuration, for the goroutine that reloads.
type order struct {
	carryOut func(context.Context)
}

// RollBack applies the documents of an earlier revision again, if the configuration in use
// has the hash match. Each source that says something else than its documents is pinned to
// them. It returns the new revision, or an error of package admin.
func (g *Gateway) RollBack(ctx context.Context, number uint64, match, why string) (config.Revision, error) {
	var revision config.Revision
	var err error
	done := make(chan struct{})
	o := order{func(ctx context.Context) {
		defer close(done)
		err = g.owner.order(func() (err error) {
			revision, err = g.rollBack(ctx, number, match, why)
			return err
		})
	}}
	select {
	case g.rollbacks <- o:
	case <-ctx.Done():
		return revision, ctx.Err()
	}
	<-done
	return revision, err
}

func (g *Gateway) rollBack(ctx context.Context, number uint64, match, why string) (config.Revision, error) {
	current := g.history.Current()
	then, kept := g.history.Revision(number)
	switch {
	case !kept:
		return current, fmt.Errorf("%w %d", admin.ErrNoRevision, number)
	case !g.history.Permanent():
		return current, admin.ErrNoHistory
	case match != current.Hash:
		return current, fmt.Errorf("%w: it has the hash %s", admin.ErrChanged, current.Hash)
	}
	sources := config.RollBack(number, then.Sources, append(g.documents.latest(), g.file), current.Sources)
	built, err := g.options.Input.Build(sources)
	if err == nil {
		reason := fmt.Sprintf("rollback to %d", number)
		if why != "" {
			reason += ": " + why
		}
		if unknown := built.Config.Unknown(then.Sources); len(unknown) > 0 {
			reason += "; not known then, so it stays: " + strings.Join(unknown, ", ")
			g.log.Warn().Uint64("number", number).Strs("sources", unknown).
				Msg("a rollback to a revision from before these sources were known: their documents stay those of now")
		}
		err = g.use(ctx, built, sources, reason)
	}
	if err != nil {
		return current, fmt.Errorf("%w %d: %w", admin.ErrInvalid, number, err)
	}
	g.refuse(nil, false)
	revision := g.history.Current()
	g.events.Add(events.Event{Kind: events.KindRolledBack, Revision: revision.Number,
		Text: fmt.Sprintf("An operator has returned to revision %d of the configuration%s", number, events.Because(why))})
	return revision, nil
}

// rebuild returns the configuration of a revision of an earlier process.
func (g *Gateway) rebuild(r config.Revision) (*config.Config, error) {
	built, err := g.options.Input.Build(r.Sources)
	if err != nil {
		return nil, err
	}
	return built.Config, nil
}
