package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/observe/events"
	"sluice/test/consultest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

var someEvents = []events.Event{
	{ID: events.ID{Start: 5, Number: 1}, Time: time.Unix(1000, 0), Kind: events.KindJoined, Level: events.Info, Service: "star", Peer: "a", Text: "a joined"},
	{ID: events.ID{Start: 5, Number: 2}, Time: time.Unix(1001, 0), Kind: events.KindEjected, Level: events.Warning, Service: "star", Peer: "a", Text: "a is ejected\x1b[2J"},
	{ID: events.ID{Start: 5, Number: 3}, Time: time.Unix(1002, 0), Kind: events.KindApplied, Level: events.Info, Text: "applied"},
}

// line returns the line of an event.
func line(e events.Event, rest string) string { return e.Time.Local().Format("15:04:05") + rest + "\n" }

func TestEventsAsLines(t *testing.T) {
	t.Parallel()
	var query atomic.Value
	list := someEvents
	address := serveJSON(t, func(r *http.Request) any { query.Store(r.URL.RequestURI()); return list })
	status, out, stderr := execute(t, "events", "--admin", address, "--service", "star", "--kind", "peer", "--kind", "config.applied", "--limit", "9")
	want := line(someEvents[0], "   peer.joined        star         a joined") +
		line(someEvents[1], " ! peer.ejected       star         a is ejected?[2J") +
		line(someEvents[2], "   config.applied     -            applied")
	verify.That(t, status == exitOK && out == want, "status %d, %s\n%swant\n%s", status, stderr, out, want)
	verify.Equal(t, query.Load(), "/api/events?format=json&kind=peer&kind=config.applied&limit=9&service=star", "asked for")
	prints(t, exitOK, `[{"id":"5-1",`, "events", "--admin", address, "--json")
	list = nil
	prints(t, exitOK, "no events\n", "events", "--after", "5-1", "--admin", address)
	verify.Contains(t, query.Load().(string), "after=5-1", "asked for")
}

// followUntil runs a command until its output has a text, and returns the output and what it
// returned.
func followUntil(t *testing.T, text string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, problems subprocess.Output
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	root := NewRoot()
	root.SetArgs(append([]string{"events", "--follow"}, args...))
	root.SetOut(&out)
	root.SetErr(&problems)
	go func() { ended <- root.ExecuteContext(ctx) }()
	consultest.Await(t, text, func() bool { return strings.Contains(out.String(), text) })
	cancel()
	err = <-ended
	return out.String(), problems.String(), err
}

// An interrupted stream continues after the latest event, also if sluice does not answer for a
// while.
func TestFollowContinues(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	address := serveHandler(t, func(w http.ResponseWriter, r *http.Request) {
		request, last, limit := requests.Add(1), r.URL.Query().Get("after"), r.URL.Query().Get("limit")
		switch {
		case request == 1 && last == "" && limit == "1":
			text, _ := json.Marshal(someEvents[0])
			fmt.Fprintf(w, "retry: 1000\n\nid: 5-1\ndata: %s\n\n:\n\nid: 5-9\ndata: {", text) // cut in the middle of an event
		case request == 2 && last == "5-1":
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"error": "too many"}`)
		case request == 3 && last == "5-1" && limit == "":
			text, _ := json.Marshal(someEvents[2])
			fmt.Fprintf(w, "id: 5-3\ndata: %s\n\n", text)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			t.Errorf("request %d: %s, limit %q", request, last, limit)
		}
	})
	stdout, stderr, err := followUntil(t, "applied", "--admin", address, "--limit", "1")
	want := line(someEvents[0], "   peer.joined        star         a joined") + line(someEvents[2], "   config.applied     -            applied")
	verify.That(t, stdout == want && err == nil, "got %v\n%swant\n%s", err, stdout, want)
	verify.Equal(t, stderr, "sluice: admin API at "+address+": too many; asking again until Ctrl-C\n", "stderr")
}

func TestFollowFailsAtOnce(t *testing.T) {
	t.Parallel()
	prints(t, exitFailed, "is it running?", "events", "--follow", "--admin", nowhere)
	refusing := serveHandler(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error": "kind \"x\""}`)
	})
	prints(t, exitFailed, `kind "x"`, "events", "--follow", "--admin", refusing)
	prints(t, exitUsage, "", "events", "star")
	prints(t, exitUsage, "--limit -1: want at least 1", "events", "--limit", "-1")
	prints(t, exitUsage, "--limit 0: want at least 1", "events", "--limit", "0") // as in the API
	prints(t, exitUsage, "--limit and --after exclude each other", "events", "--limit", "1", "--after", "5-1")
}
