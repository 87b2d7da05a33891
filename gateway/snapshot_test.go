package gateway

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/admin"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// watchOf returns the watch of a service in /api/services.
func (r *running) watchOf(name string) admin.Watch {
	r.t.Helper()
	for _, s := range fetch[[]admin.Service](r, "/api/services") {
		if s.Service == name && s.Watch != nil {
			return *s.Watch
		}
	}
	return admin.Watch{}
}

// end stops the gateway, and waits until Run returns and nothing listens on its ports: a process
// that another test starts has copies of the listeners until it becomes its program.
func (r *running) end() {
	r.t.Helper()
	r.stop()
	r.awaitEnd()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
}

// starWithSnapshot returns a configuration with the service star and a file for its set.
func starWithSnapshot(t *testing.T, consul *discoverytest.Consul) (text, file string) {
	file = filepath.Join(t.TempDir(), "snapshot.json")
	return starAnd(consul.URL(), "") + fmt.Sprintf("\nshutdown: { idle: 0s }\ndiscovery: { snapshot: %q }\n", file), file
}

func TestStartWithoutConsulServesTheSnapshot(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]discoverytest.Fault{
		"refusing":       {Drop: true},
		"hanging":        {Hang: true},
		"without leader": {NoLeader: true, Empty: true},
		"wiped":          {Empty: true, Index: "2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			consul, _ := startStar(t, "a")
			text, _ := starWithSnapshot(t, consul)
			first := start(t, text)
			first.answers("/", "a")
			verify.That(t, first.watchOf("star").Restored == nil, "the first start has restored a set")
			first.end()

			consul.Break(away)
			// The first client finds the sets of the snapshot, also if Consul and the
			// machine are so slow that sluice has waited long enough before it has used
			// them.
			second := startWithin(t, text, time.Nanosecond)
			second.gets("/", "a")
			v := second.awaitReady()
			if name == "wiped" {
				verify.Equal(t, second.watchOf("star").Instances, 1, "instances")
			} else {
				second.await("the watch is stale", func() bool {
					w := second.watchOf("star")
					return w.Restored != nil && w.State == "stale"
				})
				verify.That(t, len(v.Restored) == 1 && v.Restored[0] == "star", "readyz %+v", v)
			}
			consul.Heal()
			second.await("an answer of Consul", func() bool {
				w := second.watchOf("star")
				return w.State == "fresh" && w.Restored == nil && w.Instances == 1
			})
			_, v = second.readyz()
			verify.That(t, len(v.Restored) == 0, "readyz %+v", v)
		})
	}
}

// What a process has learned is in the file before it hands over, however soon that is after its
// start: the new process may be killed before it writes. The old process finishes its requests
// after the new one has written the file. Its sets are those from before the handover.
func TestOldProcessDoesNotWriteTheSnapshot(t *testing.T) {
	t.Parallel()
	consul, _ := startStar(t, "a")
	text, file := starWithSnapshot(t, consul)
	hasOnly := func(id string) bool {
		data, _ := os.ReadFile(file) // not there yet
		return strings.Count(string(data), `"id":"star-`) == 1 && strings.Contains(string(data), fmt.Sprintf(`"instances":[{"service":"star","id":%q`, id))
	}
	old := start(t, text)
	old.answers("/", "a")
	next := old.upgrade(text, afterHandover(t, func() {
		verify.That(t, hasOnly("star-1"), "the old process has not written")
		consul.Set("star", star(t, 2, origin(t, "b"))) // a deployment
	}))
	next.await("the new process has written", func() bool { return hasOnly("star-2") })
	old.end()
	verify.That(t, hasOnly("star-2"), "the old process has written")
	next.end()
	verify.That(t, hasOnly("star-2"), "the new process has not kept its set")
}

// A signal to start a new process may be for all processes of sluice. One that does not serve,
// because a new one does or because the old one still does, does not own after it.
func TestOnlyTheProcessThatServesIsReplaced(t *testing.T) {
	t.Parallel()
	refuses := func(r *running, when string) {
		t.Helper()
		r.ReplaceBy(func(func(io.Writer) error) error { return errors.New("the new process has ended") })
		verify.That(t, !r.owner.Do(func() { t.Errorf("%s: it writes", when) }), "%s: it owns", when)
	}
	replaced := start(t, static("a", origin(t, "a")))
	replaced.ReplaceBy(func(give func(io.Writer) error) error { return give(io.Discard) })
	refuses(replaced, "after another process serves")
	verify.That(t, replaced.documents.Paused(), "it follows the documents again")

	consul, _ := startStar(t, "a")
	consul.Break(discoverytest.Fault{Only: of("moon"), Status: 500, Body: "No path to datacenter"})
	old := start(t, starAnd(consul.URL(), ""))
	old.awaitStatus("/", 200)
	next := old.succeed(starAnd(consul.URL(), "  moon: { consul: {} }"), nil, time.Hour)
	refuses(next.running, "before it serves")
	consul.Heal()
	verify.NoError(t, <-next.outcome)
}
