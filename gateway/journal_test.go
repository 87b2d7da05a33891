package gateway

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/config"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/test/balancertest"
	"sluice/test/subprocess"
)

// peerOf returns a peer of a pool.
func peerOf(t *testing.T) *balancer.Peer {
	t.Helper()
	pool, err := balancer.NewPool("star", balancertest.Complete(balancer.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	pool.Apply([]discovery.Instance{{Service: "star", ID: "star-1", Node: "n", Address: "10.0.0.1", Port: 80, Weight: 1}})
	return pool.Snapshot().All[0]
}

func TestJournalWritesOneLineForEachEvent(t *testing.T) {
	peer := peerOf(t)
	var log subprocess.Output
	j := newJournal(events.New(), zerolog.New(&log))
	j.note(balancer.Event{Pool: "star", Peer: peer, Kind: balancer.EventAdded})
	j.note(balancer.Event{Pool: "star", Peer: peer, Kind: balancer.EventState, State: balancer.StateUnhealthy, Detail: "up → unhealthy"})
	j.note(balancer.Event{Pool: "star", Peer: peer, Kind: balancer.EventCut, State: balancer.StateDraining})
	j.close()
	j.note(balancer.Event{Pool: "star", Peer: peer}) // after close, without effect
	want := `{"level":"info","event":"added","service":"star","peer":"star-1","address":"10.0.0.1:80","node":"n","state":"up","message":"peer added"}
{"level":"warn","event":"state","service":"star","peer":"star-1","address":"10.0.0.1:80","node":"n","state":"unhealthy","detail":"up → unhealthy","message":"peer changed state"}
{"level":"warn","event":"cut","service":"star","peer":"star-1","address":"10.0.0.1:80","node":"n","state":"draining","message":"peer cut: its requests in flight did not end in time"}
`
	if got := log.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestEveryKindOfEventHasAMessage(t *testing.T) {
	for kind := balancer.EventAdded; kind.String() != "unknown"; kind++ {
		if eventMessages[kind] == "" {
			t.Errorf("no message for %q", kind)
		}
	}
}

// A pool calls note with its mutex held, so a blocked log must not block it.
func TestJournalDoesNotWaitForTheLog(t *testing.T) {
	peer := peerOf(t)
	reader, writer := io.Pipe() // without reads until below
	j := newJournal(events.New(), zerolog.New(writer))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2 * journalSize {
			j.note(balancer.Event{Pool: "star", Peer: peer})
		}
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("note blocks")
	}
	read := make(chan string)
	go func() {
		var text strings.Builder
		_, _ = io.Copy(&text, reader)
		read <- text.String()
	}()
	j.close()
	writer.Close()
	if text := <-read; !strings.Contains(text, "events of peers are lost") {
		t.Error("the log does not report lost events")
	}
}

func TestLogFollowsItsSettings(t *testing.T) {
	var out subprocess.Output
	w := newLogWriter(&out, config.Log{Level: "warn", Format: "json"})
	log := w.logger()
	log.Info().Msg("one")
	log.Warn().Msg("two")
	w.set(config.Log{Level: "debug", Format: "console"})
	log.Debug().Str("key", "value").Msg("three")
	w.set(config.Log{Level: "error", Format: "json"})
	log.Warn().Msg("four")
	got := out.String()
	for _, text := range []string{`"message":"two"}`, "DBG three key=value"} {
		if !strings.Contains(got, text) {
			t.Errorf("%q is missing in\n%s", text, got)
		}
	}
	for _, text := range []string{"one", "four", "\x1b["} {
		if strings.Contains(got, text) {
			t.Errorf("%q is in\n%s", text, got)
		}
	}
}
