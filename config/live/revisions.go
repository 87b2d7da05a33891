package live

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/config"
	"sluice/observe/events"
)

// refuse logs and records what sources offer and is not used. What was refused before for the
// same reason is told again only if it is the file, after a request to reload it.
func (m *Manager) refuse(errs map[string]error, reload bool) {
	told := m.refusals.set(errs)
	if reload && errs[m.file.Name] != nil && !slices.Contains(told, m.file.Name) {
		told = append(told, m.file.Name)
	}
	for _, source := range told {
		m.history.Refused()
		m.options.Log.Error().Str("source", source).Strs("errors", strings.Split(errs[source].Error(), "\n")).
			Uint64("in_use", m.history.Current().Number).Msg("configuration refused, the one in use stays")
		m.options.Events.Add(events.Event{Kind: events.KindRejected, Level: events.Warning, Revision: m.history.Current().Number,
			Text: fmt.Sprintf("The configuration was refused, revision %d stays in use: %s", m.history.Current().Number, strings.ReplaceAll(errs[source].Error(), "\n", "; "))})
	}
}

// warn logs what sources with precedence hide, once.
func (m *Manager) warn(b *config.Built) {
	notes := fmt.Sprint(b.Shadowed)
	if notes == m.notes {
		return
	}
	m.notes = notes
	for _, shadowed := range b.Shadowed {
		m.options.Log.Warn().Err(shadowed).Msg("a part of the configuration is not used")
	}
}

// apply applies a configuration whose sources have changed, but not the first.
func (m *Manager) apply(ctx context.Context, b *config.Built, sources []config.Source) error {
	current := m.history.Current()
	sources = b.Config.Named(sources)
	m.warn(b)
	released := config.Released(current.Sources, sources)
	inUse, err := m.options.Apply(ctx, b.Config)
	if err != nil {
		return err
	}
	m.applied = b.Config
	if len(released) == 0 && config.Equal(b.Config, current.Config) {
		m.history.Unchanged(sources)
		return nil
	}
	reason := "changed: " + strings.Join(config.Changed(current.Sources, sources), ", ")
	if len(released) > 0 {
		reason = "pin released: " + strings.Join(released, ", ")
	}
	m.record(b, sources, reason, inUse)
	return nil
}

// record adds a configuration that is in use to the history.
func (m *Manager) record(b *config.Built, sources []config.Source, reason string, inUse *config.Config) {
	r := m.revision(b, sources, reason)
	r.Diff = config.Summary(m.history.Current().Config, b.Config)
	r.Pending = config.NeedRestart(m.started, b.Config)
	if m.Paused() {
		return // the new process has the history; if it does not serve, this one reloads
	}
	applied := m.history.Applied(r)
	m.options.Applied(applied)
	m.options.Log.Info().Uint64("number", applied.Number).Str("source", r.Source).Str("reason", reason).Str("hash", r.Hash).
		Int("services", len(inUse.Services)).Int("routes", len(inUse.Routes)).Msg("configuration applied")
	m.emitApplied(applied)
	for _, key := range r.Pending {
		m.options.Log.Warn().Str("key", key).Str("reason", config.RestartReason(key)).Msg("the new value of this key takes effect at the next start")
	}
}

// emitApplied adds the application of a revision to the feed.
func (m *Manager) emitApplied(r config.Revision) {
	text := fmt.Sprintf("Revision %d of the configuration was applied: %s", r.Number, r.Reason)
	if len(r.Diff) > 0 {
		text += fmt.Sprintf(", differences: %d", len(r.Diff))
	}
	m.options.Events.Add(events.Event{Kind: events.KindApplied, Revision: r.Number, Text: text})
}

// revision returns a revision that is not applied yet.
func (m *Manager) revision(b *config.Built, sources []config.Source, reason string) config.Revision {
	return config.Revision{Source: m.input.Source(), Hash: b.Hash(), Reason: reason, Sources: sources, Config: b.Config}
}
