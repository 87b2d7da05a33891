package gateway

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"sluice/observe/events"
	"sluice/observe/panics"
	"sluice/test/verify"
)

// A contained panic is in the log with its stack, and in the feed.
func TestPanicsAreReported(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	feed := events.New()
	reportPanics(feed, zerolog.New(&log))(panics.Contained{Place: panics.Stream, Value: "index out of range", Stack: []byte("goroutine 7 [running]:"), Unreported: 3})
	for _, want := range []string{`"at":"stream"`, `"panic":"index out of range"`, "goroutine 7", `"unreported":3`, `"level":"error"`} {
		verify.That(t, strings.Contains(log.String(), want), "the log lacks %s: %s", want, &log)
	}
	kept, _ := feed.Read(events.Filter{Kinds: []string{string(events.KindPanicked)}}, events.ID{})
	verify.That(t, len(kept) == 1 && kept[0].Level == events.Warning && strings.Contains(kept[0].Text, "index out of range"), "events: %+v", kept)
}
