package gateway

import (
	"fmt"

	"github.com/rs/zerolog"

	"sluice/observe/events"
	"sluice/observe/panics"
)

// reportPanics returns what logs a panic that ended only what its goroutine served, and adds it to
// the feed.
func reportPanics(feed *events.Feed, log zerolog.Logger) func(panics.Contained) {
	return func(c panics.Contained) {
		line := log.Error().Stringer("at", c.Place).Str("panic", c.Value)
		if c.Unreported > 0 {
			line = line.Uint64("unreported", c.Unreported)
		}
		line.Str("stack", string(c.Stack)).Msg("sluice has panicked: only what the goroutine served has ended. Please report it")
		feed.Add(events.Event{Kind: events.KindPanicked, Level: events.Warning, Text: fmt.Sprintf("sluice has panicked (%s): only what the goroutine served has ended; the log has the stack. %s", c.Place, c.Value)})
	}
}
