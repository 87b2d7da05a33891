package gateway

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sluice/discovery"
	"sluice/discovery/saved"
	"sluice/proxy/handover"
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

// afterHandover calls f after the old process has given its state.
func afterHandover(t *testing.T, f func()) func(io.ReadCloser) io.ReadCloser {
	return func(given io.ReadCloser) io.ReadCloser {
		state, err := io.ReadAll(given)
		verify.Succeeds(t, err)
		f()
		return io.NopCloser(bytes.NewReader(state))
	}
}
