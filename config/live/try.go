package live

import (
	"context"
	"errors"
	"slices"

	"sluice/config"
)

// ErrNoSource is the error of Try for a document that no source of the configuration has.
var ErrNoSource = errors.New("no source of the configuration has a document with this name")

// Try builds what the configuration would be with a text in place of the document with a name, or
// with "" in place of the configuration file, and calls use with it. unknown are the sources that
// it names and whose documents are not known. Nothing changes, and nothing is applied meanwhile.
// An error is ErrNoSource, config.Errors, or as of RollBack.
func (m *Manager) Try(ctx context.Context, name, text string, use func(c *config.Config, unknown []string) error) error {
	return m.inTurn(ctx, func(context.Context) error {
		sources := slices.Clone(m.history.Current().Sources)
		if name == "" {
			sources[0] = m.input.FileSource(text)
		} else if !config.PutDocument(sources[1:], name, text) {
			return ErrNoSource
		}
		in := m.input
		in.Decoded, in.OpenFiles = nil, false // what is kept there is of documents in use
		built, err := in.Build(sources)
		if err != nil {
			return err
		}
		return use(built.Config, built.Config.Unknown(sources))
	})
}
