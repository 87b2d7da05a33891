package discovery

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

// Each run of a source continues where the run before has ended, also after a failure.
func TestWatcherContinuesFromTheRunBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := WatchState{Known: true, Set: instances("a", "b"), Memory: []Memory{{Index: 7, Filtered: true}}}
		run := func(f func(w *Watcher), want string) {
			t.Helper()
			time.Sleep(40 * time.Second)
			f(NewWatcher(Guard{Probation: time.Minute}, state, func(r Report) {
				if state.Memory = r.Memory; r.Known {
					state.Set = r.Set
				}
			}))
			verify.Equal(t, formatSet(state.Set), want, "in use")
		}
		answer := func(set []Instance) func(*Watcher) {
			return func(w *Watcher) {
				m := w.Memory()
				verify.That(t, m.Index == 7 && m.Filtered, "the memory is %+v", m)
				w.Accept(Report{Set: set}, m)
			}
		}
		run(answer(nil), "a? b?")
		run(answer(nil), "a? b?")
		run(func(w *Watcher) { w.Failed(errors.New("away")) }, "a? b?")
		run(answer(nil), "a? b?") // time stood while it failed
		run(answer(nil), "")
	})
}

// The first failure of a service that nobody knows leaves no memory.
func TestWatcherWithoutAnswerHasNoMemory(t *testing.T) {
	var last Report
	w := NewWatcher(Guard{}, WatchState{Memory: []Memory{{Index: 7}}}, func(r Report) { last = r })
	w.Failed(errors.New("away"))
	verify.That(t, last.Err != nil && last.Memory == nil && w.Memory().Index == 0, "reported %+v", last)
}
