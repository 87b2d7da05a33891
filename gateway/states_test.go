package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/discovery"
	"sluice/discovery/saved"
	"sluice/proxy/handover"
	"sluice/test/discoverytest"
	"sluice/test/filled"
	"sluice/test/verify"
)

// Every field of the state of a watch passes every boundary.
func TestStateOfAWatchPassesEveryBoundary(t *testing.T) {
	t.Parallel()
	var state discovery.WatchState
	filled.New(t).Fill(&state)
	for n := range state.Set {
		state.Set[n].Socket = "" // else the address has no meaning
	}
	state.Set = discovery.Normalize(state.Set)
	t.Run("between processes", func(t *testing.T) {
		old, next := discovery.NewManager(discovery.ManagerOptions{}), discovery.NewManager(discovery.ManagerOptions{})
		old.Watch("star", idleOf(state), state)
		var written bytes.Buffer
		verify.NoError(t, handover.Save(&written, []handover.Part{handover.NewPart("services", old.Save, next.Restore)}))
		verify.NoError(t, handover.Restore(&written, []handover.Part{handover.NewPart("services", old.Save, next.Restore)}))
		next.WatchAll(map[string]discovery.Source{"star": idleOf(state)})
		verify.DeepEqual(t, next.States()["star"], state, "state")
	})
	t.Run("between watches", func(t *testing.T) {
		m := discovery.NewManager(discovery.ManagerOptions{Sink: func(discovery.Set) {}})
		m.Watch("star", idleOf(state), state)
		verify.DeepEqual(t, m.States()["star"], state, "state")
		m.Watch("star", idleOf(state)) // a reload
		reloaded := state
		reloaded.Fresh = false
		verify.DeepEqual(t, m.States()["star"], reloaded, "state")
		m.Watch("moon", idleOf(state), m.States()["star"]) // another name
		verify.DeepEqual(t, m.States()["moon"], reloaded, "state")
	})
	t.Run("through the snapshot", func(t *testing.T) {
		fresh := state
		fresh.Restored = time.Time{}
		path := filepath.Join(t.TempDir(), "snapshot.json")
		open := func() *saved.Store {
			store, err := saved.Open(saved.Options{Path: path, States: func() map[string]discovery.WatchState {
				return map[string]discovery.WatchState{"star": fresh}
			}})
			verify.NoError(t, err)
			return store
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		open().Run(ended) // writes
		got, ok := open().Get("star", state.Source, state.Addresses)
		verify.Require(t, ok, "not saved")
		want := fresh
		want.Restored = state.LastSuccess
		// What is about the agent of then, and the time without a process.
		want.Fresh, want.Endpoint, want.LastSuccess = false, "", time.Time{}
		want.Memory = slices.Clone(want.Memory)
		for n := range want.Memory {
			want.Memory[n].Guard.AsOf = time.Time{}
		}
		verify.DeepEqual(t, got, want, "state")
	})
	t.Run("from guard to guard", func(t *testing.T) {
		memory := state.Memory[0].Guard
		for n, i := range state.Set {
			memory.Probation[n].Key = i.Key()
		}
		guard := discovery.Guard{Probation: time.Hour}
		guard.Restore(state.Set, memory)
		verify.DeepEqual(t, guard.Memory(), memory, "the memory")
	})
}

// idle is a source with a name and addresses that reports nothing.
type idle struct{ source, addresses string }

// idleOf returns the source of a state.
func idleOf(state discovery.WatchState) idle { return idle{state.Source, state.Addresses} }

func (i idle) String() string { return i.source }

func (i idle) Addresses() string { return i.addresses }

func (idle) Run(ctx context.Context, _ discovery.WatchState, _ func(discovery.Report)) error {
	<-ctx.Done()
	return ctx.Err()
}

// Consul loses its state while a new process starts, or none runs. It lists one of three instances;
// the others have not registered again yet.
func TestLossOfStateAcrossABoundaryPutsInstancesOnProbation(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"upgrade", "restart", "renaming"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			consul, at := startStar(t, "1", "2", "3")
			first := star(t, 1, at[0])
			consul.SetIndex(1000)
			consul.Set("star", first, star(t, 2, at[1]), star(t, 3, at[2]))
			before, _ := starWithSnapshot(t, consul)
			before = strings.Replace(before, "consul: {}", "consul: { service: star }", 1)
			name := "star"
			r := start(t, before)
			r.await("three peers", func() bool { return len(r.peers()) == 3 })
			if how == "renaming" {
				name = "sun"
				consul.Break(discoverytest.Fault{Drop: true})
				r.await("a stale watch", func() bool { return r.watchOf("star").State == "stale" })
			}
			r = r.cross(how, before, func() { consul.Lose(20, "star", first) })
			r.refuses("/", 200, "afterwards")
			consul.Heal()
			r.await("an answer, of which the pool knows", func() bool { // never if an instance was lost
				w, probation := r.watchOf(name), 0
				for _, p := range r.peers() {
					if p.Probation != nil {
						probation++
					}
				}
				return w.State == "fresh" && w.Index == 20 && len(r.peers()) == 3 && w.Probation == 2 && probation == 2
			})
		})
	}
}

// cross takes r across a boundary, and calls during meanwhile: an upgrade, a restart, or a renaming
// of star to sun.
func (r *running) cross(how, text string, during func()) *running {
	r.t.Helper()
	switch how {
	case "upgrade":
		return r.upgrade(text, afterHandover(r.t, during))
	case "restart":
		r.end()
		during()
		return start(r.t, text)
	default:
		during()
		r.replace(strings.NewReplacer("  star:", "  sun:", "[{ service: star }]", "[{ service: sun }]").Replace(text))
		return r
	}
}

// afterHandover calls f after the old process has given its state.
func afterHandover(t *testing.T, f func()) func(io.ReadCloser) io.ReadCloser {
	return func(given io.ReadCloser) io.ReadCloser {
		state, err := io.ReadAll(given)
		verify.Succeeds(t, err)
		f()
		return io.NopCloser(bytes.NewReader(state))
	}
}

// An instance on probation that has failed is not used again, whoever has its address by then.
func TestFailureOnProbationPassesEveryBoundary(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"upgrade", "restart", "renaming"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			consul := discoverytest.Start(t)
			a := origin(t, "a")
			b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "b") }))
			address := b.Listener.Addr().String()
			consul.Set("star", star(t, 1, a), star(t, 2, address))
			text, _ := starWithSnapshot(t, consul)
			text = strings.Replace(text, "consul: {}", "consul: { service: star }, balance: { policy: round_robin }", 1)
			r := start(t, text)
			r.await("both peers", func() bool { return r.peers()[a].Used && r.peers()[address].Used })
			consul.Set("star")
			r.await("both are on probation", func() bool {
				peers := r.peers()
				return peers[a].Probation != nil && peers[address].Probation != nil
			})
			b.CloseClientConnections()
			b.Close()
			r.await("its use has ended for good", func() bool { r.get("/"); return r.peers()[address].State == "unhealthy" })
			r = r.cross(how, text, func() {})
			r.await("both are known", func() bool { return len(r.peers()) == 2 })
			if p := r.peers()[address]; p.Used || p.State != "unhealthy" || !strings.Contains(fmt.Sprint(p.Reasons), "failed since: no connection") {
				t.Errorf("the peer that has failed: %+v", p)
			}
			p := r.peers()[a]
			verify.That(t, p.Used && p.Probation != nil, "the peer that works: %+v", p)
		})
	}
}

// A token sees only some instances, which is known across a boundary: one of them that is
// deregistered meanwhile is not hidden.
func TestPartialSightPassesEveryBoundary(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"upgrade", "restart"} { // a restart while Consul is away
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			consul := discoverytest.Start(t)
			consul.DisableStreaming()
			one, two, three := star(t, 1, origin(t, "1")), star(t, 2, origin(t, "2")), star(t, 3, origin(t, "3"))
			partial := discoverytest.Fault{Filtered: true, Only: func(discoverytest.Request) bool {
				time.Sleep(100 * time.Millisecond) // a fault does not block
				return true
			}}
			consul.Set("star", one, two)
			consul.Break(partial)
			text, _ := starWithSnapshot(t, consul)
			r := start(t, text)
			r.await("two peers", func() bool { return len(r.peers()) == 2 })
			r = r.cross(how, text, func() {
				if how == "restart" {
					consul.Break(discoverytest.Fault{Drop: true})
				}
				consul.Set("star", one, three)
			})
			if how == "restart" {
				r.await("the saved set is in use", func() bool { return len(r.peers()) == 2 })
				consul.Break(partial)
			}
			r.await("the deployment is used", func() bool { return len(r.peers()) == 2 && r.peer("star-1").ID+r.peer("star-3").ID == "star-1star-3" })
		})
	}
}
