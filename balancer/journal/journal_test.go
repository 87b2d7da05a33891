package journal

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/test/balancertest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// peerOf returns a peer of a pool.
func peerOf(t *testing.T) *balancer.Peer {
	t.Helper()
	pool := balancer.NewPool("star", balancertest.Complete(balancer.Options{}))
	t.Cleanup(pool.Close)
	pool.Apply([]discovery.Instance{{Service: "star", ID: "star-1", Node: "n", Address: "10.0.0.1", Port: 80, Weight: 1}})
	return pool.Snapshot().All[0]
}

func TestJournalWritesOneLineForEachEvent(t *testing.T) {
	peer := peerOf(t)
	var log subprocess.Output
	j := New(events.New(), zerolog.New(&log))
	j.Note(balancer.Event{Pool: "star", Peer: peer, Kind: balancer.EventAdded})
	j.Note(balancer.Event{Pool: "star", Peer: peer, Kind: balancer.EventState, State: balancer.StateUnhealthy, Detail: "up → unhealthy"})
	j.Note(balancer.Event{Pool: "star", Peer: peer, Kind: balancer.EventCut, State: balancer.StateDraining})
	j.Close()
	j.Note(balancer.Event{Pool: "star", Peer: peer}) // after Close, without effect
	want := `{"level":"info","event":"added","service":"star","peer":"star-1","address":"10.0.0.1:80","node":"n","state":"up","message":"peer added"}
{"level":"warn","event":"state","service":"star","peer":"star-1","address":"10.0.0.1:80","node":"n","state":"unhealthy","detail":"up → unhealthy","message":"peer changed state"}
{"level":"warn","event":"cut","service":"star","peer":"star-1","address":"10.0.0.1:80","node":"n","state":"draining","message":"peer cut: its requests in flight were ended"}
`
	got := log.String()
	verify.That(t, got == want, "got\n%swant\n%s", got, want)
}

func TestEveryKindOfEventHasAMessage(t *testing.T) {
	for kind := balancer.EventAdded; kind <= balancer.EventRefused; kind++ {
		verify.That(t, eventMessages[kind] != "", "no message for %q", kind)
	}
}

// A pool calls Note with its mutex held, so a blocked log must not block it.
func TestJournalDoesNotWaitForTheLog(t *testing.T) {
	peer := peerOf(t)
	reader, writer := io.Pipe() // without reads until below
	j := New(events.New(), zerolog.New(writer))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2 * queueSize {
			j.Note(balancer.Event{Pool: "star", Peer: peer})
		}
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("Note blocks")
	}
	read := make(chan string)
	go func() {
		var text strings.Builder
		_, _ = io.Copy(&text, reader)
		read <- text.String()
	}()
	j.Close()
	writer.Close()
	verify.Contains(t, <-read, "events of peers are lost", "the log does not report lost events")
}
