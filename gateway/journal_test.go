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
	"sluice/subprocess"
)

// peerOf returns a peer of a pool.
func peerOf(t *testing.T) *balancer.Peer {
	t.Helper()
	pool, err := balancer.NewPool("star", balancer.Options{})
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
	j := newJournal(zerolog.New(&log))
	j.note(balancer.Event{Pool: "star", Peer: peer, Kind: balancer.EventAdded})
	j.note(balancer.Event{Pool: "star", Peer: peer, Kind: balancer.EventState, State: balancer.StateUnhealthy, Detail: "up → unhealthy"})
	j.note(balancer.Event{Pool: "star", Peer: peer, Kind: balancer.EventCut, State: balancer.StateDraining})
	j.close()
	j.note(balancer.Event{Pool: "star", Peer: peer}) // too late, harmless
	want := `{"level":"info","service":"star","peer":"star-1","address":"10.0.0.1:80","node":"n","state":"up","message":"peer added"}
{"level":"warn","service":"star","peer":"star-1","address":"10.0.0.1:80","node":"n","state":"unhealthy","detail":"up → unhealthy","message":"peer changed state"}
{"level":"warn","service":"star","peer":"star-1","address":"10.0.0.1:80","node":"n","state":"draining","message":"peer cut: its requests in flight did not end in time"}
`
	if got := log.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestEveryKindOfEventHasAMessage(t *testing.T) {
	for kind := balancer.EventAdded; kind.String() != "unknown"; kind++ {
		if eventMessages[kind] == "" {
			t.Errorf("none for %q", kind)
		}
	}
}

// A pool notes events while it holds its lock: a log that takes nothing must
// not hold it up.
func TestJournalNeverWaitsForTheLog(t *testing.T) {
	peer := peerOf(t)
	stuck, free := io.Pipe() // nobody reads
	j := newJournal(zerolog.New(free))
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
		t.Fatal("note waits")
	}
	read := make(chan string)
	go func() {
		var text strings.Builder
		_, _ = io.Copy(&text, stuck)
		read <- text.String()
	}()
	j.close()
	free.Close()
	if text := <-read; !strings.Contains(text, "changes of peers were not logged") {
		t.Error("the log does not say that lines are missing")
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
