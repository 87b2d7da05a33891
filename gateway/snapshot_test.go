package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/admin"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// watchOf returns the watch of a service in /api/services.
func (r *running) watchOf(name string) admin.Watch {
	r.t.Helper()
	var services []admin.Service
	r.api("/api/services", &services)
	for _, s := range services {
		if s.Service == name && s.Watch != nil {
			return *s.Watch
		}
	}
	return admin.Watch{}
}

// end stops the gateway, and waits until Run returns.
func (r *running) end() {
	r.stop()
	<-r.ended
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
			consul := discoverytest.Start(t)
			a := origin(t, "a")
			consul.Set("star", discoverytest.Instance("star", "star-1", port(t, a)))
			file := filepath.Join(t.TempDir(), "snapshot.json")
			text := preamble + "shutdown: { idle: 0s }\nconsul: { addresses: [" + consul.URL() + "] }\ndiscovery: { snapshot: " + file + " }\n" +
				"services: { star: { consul: {} } }\nroutes: [{ service: star }]"

			first := start(t, text)
			first.await("a request succeeds", func() bool { status, _ := first.get("/"); return status == 200 })
			if w := first.watchOf("star"); w.Restored != nil {
				t.Errorf("watch %+v", w)
			}
			first.end()

			consul.Break(away)
			second := start(t, text)
			second.gets("/", "a")
			var v admin.Readiness
			second.await("readiness", func() bool { return second.api("/readyz", &v) == 200 })
			if name == "wiped" {
				if w := second.watchOf("star"); w.Instances != 1 {
					t.Errorf("watch %+v", w)
				}
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
			if second.api("/readyz", &v); len(v.Restored) != 0 {
				t.Errorf("readyz %+v", v)
			}
		})
	}
}

// The first client finds the sets of the snapshot, also if Consul and the machine are so slow that
// sluice has waited long enough before it has used them.
func TestNoClientComesBeforeTheSnapshot(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	consul.Set("star", discoverytest.Instance("star", "star-1", port(t, origin(t, "a"))))
	file := filepath.Join(t.TempDir(), "snapshot.json")
	text := preamble + "shutdown: { idle: 0s }\nconsul: { addresses: [" + consul.URL() + "] }\ndiscovery: { snapshot: " + file + " }\n" +
		"services: { star: { consul: {} } }\nroutes: [{ service: star }]"
	first := start(t, text)
	first.await("a request succeeds", func() bool { status, _ := first.get("/"); return status == 200 })
	first.end()
	consul.Break(discoverytest.Fault{Hang: true})
	second := startWithin(t, text, time.Nanosecond)
	second.gets("/", "a")
}

func TestDamagedSnapshotIsRefusedWithAWarning(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	consul.Break(discoverytest.Fault{Drop: true})
	file := filepath.Join(t.TempDir(), "snapshot.json")
	verify.NoError(t, os.WriteFile(file, []byte(`{"version":1,`), 0o600))
	r := start(t, preamble+"consul: { addresses: ["+consul.URL()+"] }\ndiscovery: { snapshot: "+file+" }\nservices: { star: { consul: {} } }\nroutes: [{ service: star }]")
	var v admin.Readiness
	status := r.api("/readyz", &v)
	verify.That(t, status == 503 && len(v.Restored) == 0, "readyz: %d %+v", status, v)
	verify.Contains(t, r.log.String(), `"error":"the snapshot is damaged`, "no warning")
	r.end()
	if got, err := os.ReadFile(file); err != nil || string(got) != `{"version":1,` {
		t.Errorf("the file has changed: %q, %v", got, err)
	}
}

// The old process finishes its requests after the new one has written the file. Its sets are those
// from before the handover.
func TestOldProcessDoesNotWriteTheSnapshot(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	a, b := origin(t, "a"), origin(t, "b")
	consul.Set("star", discoverytest.Instance("star", "star-old", port(t, a)))
	file := filepath.Join(t.TempDir(), "snapshot.json")
	text := preamble + "shutdown: { idle: 0s }\nconsul: { addresses: [" + consul.URL() + "] }\ndiscovery: { snapshot: " + file + " }\n" +
		"services: { star: { consul: {} } }\nroutes: [{ service: star }]"
	has := func(id string) bool {
		data, _ := os.ReadFile(file) // not there yet
		return strings.Contains(string(data), fmt.Sprintf(`"instances":[{"service":"star","id":%q`, id))
	}
	old := start(t, text)
	old.await("the old process has written", func() bool { return has("star-old") })
	next := old.succeed(text, func(given io.ReadCloser) io.ReadCloser {
		state, err := io.ReadAll(given)
		verify.Succeeds(t, err)
		consul.Set("star", discoverytest.Instance("star", "star-new", port(t, b))) // a deployment
		return io.NopCloser(bytes.NewReader(state))
	}, patience)
	verify.NoError(t, <-next.outcome)
	next.await("the new process has written", func() bool { return has("star-new") && !has("star-old") })
	old.end()
	if !has("star-new") || has("star-old") {
		t.Errorf("the old process has written: star-new %v, star-old %v", has("star-new"), has("star-old"))
	}
	next.end()
	verify.That(t, has("star-new"), "the new process has not kept its set")
}

// What a process has learned is in the file before it hands over, however soon that is after its
// start: the new process may be killed before it writes.
func TestSnapshotIsWrittenBeforeTheHandover(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	consul.Set("star", discoverytest.Instance("star", "star-1", port(t, origin(t, "a"))))
	file := filepath.Join(t.TempDir(), "snapshot.json")
	text := preamble + "shutdown: { idle: 0s }\nconsul: { addresses: [" + consul.URL() + "] }\ndiscovery: { snapshot: " + file + " }\n" +
		"services: { star: { consul: {} } }\nroutes: [{ service: star }]"
	old := start(t, text)
	old.await("a request succeeds", func() bool { status, _ := old.get("/"); return status == 200 })
	next := old.succeed(text, func(given io.ReadCloser) io.ReadCloser {
		state, err := io.ReadAll(given)
		verify.Succeeds(t, err)
		if data, err := os.ReadFile(file); err != nil || !strings.Contains(string(data), `"star-1"`) {
			t.Errorf("after the handover the file has %q, %v", data, err)
		}
		return io.NopCloser(bytes.NewReader(state))
	}, patience)
	verify.NoError(t, <-next.outcome)
}

// A process whose replacement fails owns again, and a replacement that never serves writes nothing.
func TestOwnershipReturnsIfTheNewProcessFails(t *testing.T) {
	t.Parallel()
	old := start(t, static("a", origin(t, "a")))
	verify.Require(t, old.owner.Do(func() {}), "the only process does not own")
	old.ReplaceBy(func(give func(io.Writer) error) error {
		verify.Succeeds(t, give(io.Discard))
		verify.That(t, !old.owner.Do(func() { t.Error("it writes after it has handed over") }), "it owns after it has handed over")
		return errors.New("the new process has ended")
	})
	wrote := false
	verify.That(t, old.owner.Do(func() { wrote = true }) && wrote, "it does not own again")
}
