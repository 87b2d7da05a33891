package live

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/config"
	"sluice/observe/events"
	"sluice/observe/panics"
)

// Errors of RollBack.
var (
	ErrNoRevision = errors.New("no revision")
	ErrNoHistory  = errors.New("config.history is not set: a rollback would not outlive the process")
	ErrChanged    = errors.New("the configuration in use is another one")
	ErrInvalid    = errors.New("cannot use revision")
	ErrEnded      = errors.New("sluice is stopping")
)

// RollBack applies the documents of an earlier revision again, if the configuration in use
// has the hash match. Each source that says something else than its documents is pinned to
// them. It returns the new revision, or ErrNoRevision,
// ErrNoHistory, ErrChanged, ErrInvalid, ErrEnded, panics.Err, or the error of Options.Order.
func (m *Manager) RollBack(ctx context.Context, number uint64, match, why string) (config.Revision, error) {
	var revision config.Revision
	err := m.inTurn(ctx, func(ctx context.Context) (err error) {
		revision, err = m.rollBack(ctx, number, match, why)
		return err
	})
	return revision, err
}

// inTurn calls f while no configuration is applied, and returns its error, ErrEnded, panics.Err or
// the error of ctx.
func (m *Manager) inTurn(ctx context.Context, f func(ctx context.Context) error) (err error) {
	done := make(chan struct{})
	carryOut := func(ctx context.Context) {
		defer close(done)
		err = panics.Err
		err = f(ctx)
	}
	select {
	case m.orders <- carryOut:
	case <-m.ended:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	<-done
	return err
}

func (m *Manager) rollBack(ctx context.Context, number uint64, match, why string) (config.Revision, error) {
	current := m.history.Current()
	if err := m.options.Order(func() error { return nil }); err != nil {
		return current, err
	}
	then, kept := m.history.Revision(number)
	switch {
	case !kept:
		return current, fmt.Errorf("%w %d", ErrNoRevision, number)
	case !m.history.Permanent():
		return current, ErrNoHistory
	case match != current.Hash:
		return current, fmt.Errorf("%w: it has the hash %s", ErrChanged, current.Hash)
	}
	restored := m.input.Moved(then.Sources)
	sources := config.RollBack(number, restored, append(m.documents.latest(), m.file), current.Sources)
	built, err := m.input.Build(sources)
	reason := fmt.Sprintf("rollback to %d", number)
	var inUse *config.Config
	if err == nil {
		if why != "" {
			reason += ": " + why
		}
		if unknown := built.Config.Unknown(then.Sources); len(unknown) > 0 {
			reason += "; not known then, so it stays: " + strings.Join(unknown, ", ")
			m.options.Log.Warn().Uint64("number", number).Strs("sources", unknown).
				Msg("a rollback to a revision from before these sources were known: their documents stay as they are")
		}
		m.warn(built)
		inUse, err = m.options.Apply(ctx, built.Config)
	}
	if err != nil {
		return current, fmt.Errorf("%w %d: %w", ErrInvalid, number, err)
	}
	m.applied = built.Config
	// A new process waits for orders: not for seconds, nor for itself, as the removal of a listener
	// does. If one has begun to take over, it does not know of the rollback; if it fails, a reload
	// ends what was applied.
	if err := m.options.Order(func() error {
		m.record(built, built.Config.Named(sources), reason, inUse)
		return nil
	}); err != nil {
		return current, err
	}
	m.refuse(m.refusedBeside(restored), false)
	revision := m.history.Current()
	m.options.Events.Add(events.Event{Kind: events.KindRolledBack, Revision: revision.Number,
		Text: fmt.Sprintf("An operator has returned to revision %d of the configuration%s", number, events.Because(why))})
	return revision, nil
}

// refusedBeside returns what is refused now, without what these sources, which a rollback restores,
// offer. A file that cannot be read stays refused.
func (m *Manager) refusedBeside(restored []config.Source) map[string]error {
	errs := make(map[string]error)
	for name, r := range m.refusals.all() {
		if !slices.ContainsFunc(restored, func(s config.Source) bool { return s.Name == name }) {
			errs[name] = r.Err
		}
	}
	if m.fileErr != nil {
		errs[m.file.Name] = m.fileErr
	}
	return errs
}

// Rebuild builds the configuration of a revision again, such as one of an earlier process.
func (m *Manager) Rebuild(r config.Revision) (*config.Built, error) { return m.input.Build(r.Sources) }
