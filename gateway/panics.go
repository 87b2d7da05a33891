package gateway

import (
	"fmt"

	"sluice/observe/events"
	"sluice/observe/panics"
)

// panicked logs a panic that ended only what its goroutine served, and adds it to the feed.
func (g *Gateway) panicked(c panics.Contained) {
	line := g.log.Error().Stringer("at", c.Place).Str("panic", c.Value)
	if c.Unreported > 0 {
		line = line.Uint64("unreported", c.Unreported)
	}
	line.Str("stack", string(c.Stack)).Msg("sluice has panicked: only what the goroutine served has ended. Please report it")
	g.events.Add(events.Event{Kind: events.KindPanicked, Level: events.Warning, Text: fmt.Sprintf("sluice has panicked (%s): only what the goroutine served has ended; the log has the stack. %s", c.Place, c.Value)})
}
