package gateway

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"sluice/observe/events"
	"sluice/observe/panics"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// told returns the kinds and texts of what is in a feed.
func told(f *events.Feed) (lines []string) {
	kept, _ := f.Read(events.Filter{}, events.ID{})
	for _, e := range kept {
		lines = append(lines, fmt.Sprintf("%s %s: %s", e.Level, e.Kind, e.Text))
	}
	return lines
}

func TestFeedTellsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	r := start(t, static("a", a))
	r.await("sluice is ready", func() bool { return len(told(r.events)) >= 4 })
	want := []string{
		"info sluice.started: sluice test has started",
		"info config.applied: Revision 1 of the configuration was applied: start",
		"info peer.joined: " + a + " joined",
		"info sluice.ready: sluice is ready",
	}
	got := told(r.events)
	verify.That(t, slices.Equal(got, want), "got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	r.write("services: { a: { peers: [x] } }")
	r.await("the file is refused", func() bool { return len(told(r.events)) > len(want) })
	if got := told(r.events)[len(want)]; !strings.HasPrefix(got, "warning config.refused: The configuration was refused, revision 1 stays in use: ") || strings.Contains(got, "\n") {
		t.Errorf("got %s", got)
	}
	r.replace(static("a", a, "b", a))
	r.await("the revision is told", func() bool {
		return slices.ContainsFunc(told(r.events), func(line string) bool {
			return strings.HasPrefix(line, "info config.applied: Revision 2 of the configuration was applied: changed: "+r.file+", differences: ")
		})
	})
	list := fetch[[]events.Event](r, "/api/events?format=json&kind=config")
	verify.That(t, len(list) == 3 && list[2].Revision == 2 && list[1].Level == events.Warning, "got %+v", list)
}

// The registry of a service fails and recovers. A failure is told once, however many queries fail.
func TestFeedTellsOfTheRegistry(t *testing.T) {
	t.Parallel()
	consul, _ := startStar(t, "a")
	r := start(t, starAnd(consul.URL(), ""))
	await := func(kinds ...events.Kind) {
		t.Helper()
		for _, kind := range kinds {
			r.await(string(kind), func() bool {
				return slices.ContainsFunc(r.events.All(), func(e events.Event) bool { return e.Kind == kind })
			})
		}
	}
	await(events.KindJoined)
	consul.Break(discoverytest.Fault{Drop: true})
	await(events.KindFailing, events.KindAgentFails)
	consul.Heal()
	await(events.KindReadable, events.KindAgentRecovered)
	failing := false // several of each are told in turn, if the machine stands still
	for _, e := range r.events.All() {
		if e.Kind == events.KindFailing || e.Kind == events.KindReadable {
			verify.That(t, failing != (e.Kind == events.KindFailing), "%s is told twice", e.Kind)
			failing = !failing
		}
	}
}

// A stream does not delay the end of sluice, tells it, and ends properly.
func TestStreamOfEventsEndsWithSluice(t *testing.T) {
	t.Parallel()
	r := start(t, "shutdown: { grace: 1h }\n"+static("a", origin(t, "a")))
	response := verify.Result(http.Get(r.url("admin") + "/api/events")).Must(t)
	defer response.Body.Close()
	r.stop()
	body, err := io.ReadAll(response.Body)
	verify.That(t, err == nil && strings.Contains(string(body), string(events.KindStopping)), "%v:\n%s", err, body)
	<-r.ended
}

// The feed of a new process begins anew, and says so to who has followed that of the old one.
func TestFeedOfANewProcess(t *testing.T) {
	t.Parallel()
	text := static("a", origin(t, "a"))
	old := start(t, text)
	old.await("the old process is ready", func() bool { return len(told(old.events)) == 4 })
	known := old.events.All()
	next := old.upgrade(text, nil)
	next.await("the new process is ready", func() bool { return len(told(next.events)) == 3 })
	later, _ := next.events.Read(events.Filter{}, known[len(known)-1].ID)
	verify.That(t, len(later) == 4 && later[0].Kind == events.KindSkipped && later[1].Text == "sluice test has started in place of another process", "the feed is %+v", later)
}

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
