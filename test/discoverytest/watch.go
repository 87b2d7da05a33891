package discoverytest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/parallel"
)

// Watched is a source that a manager runs. It is safe for concurrent use.
type Watched struct {
	t       testing.TB
	manager *discovery.Manager

	mu   sync.Mutex // guards the fields below
	set  []discovery.Instance
	sets []string // what the manager has handed on, as Format
}

// Watch runs a source of the service star until the test ends. saved is the set of the snapshot;
// nil: there is none.
func Watch(t testing.TB, source discovery.Source, log zerolog.Logger, saved ...discovery.Instance) *Watched {
	w := &Watched{t: t}
	w.manager = discovery.NewManager(discovery.ManagerOptions{
		Sink: func(set discovery.Set) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.set, w.sets = set.Instances, append(w.sets, Format(set.Instances))
		},
		Fallback: func(_, source, _ string) (discovery.WatchState, bool) {
			return discovery.WatchState{Source: source, Known: true, Set: saved, Restored: time.Now()}, saved != nil
		},
		Log: log,
	})
	w.manager.Watch("star", source)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the sets were %q; %+v", w.sets, w.Status())
		}
	})
	parallel.Run(t, func(ctx context.Context) { _ = w.manager.Run(ctx) })
	return w
}

// Format returns a set as "ID=ADDRESS:PORT*WEIGHT^PRIORITY?", with a space between instances. The
// address is omitted if it is the id, weight and priority if they are 1 or absent; "?" is for one
// on probation.
func Format(set []discovery.Instance) string {
	var words []string
	for _, i := range set {
		word := i.ID
		if i.HostPort() != i.ID {
			word += "=" + i.HostPort()
		}
		if i.Weight != 1 {
			word += fmt.Sprintf("*%d", i.Weight)
		}
		if i.Priority > 1 {
			word += fmt.Sprintf("^%d", i.Priority)
		}
		if !i.Probation.IsZero() {
			word += "?"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// Status returns the status of the watch.
func (w *Watched) Status() discovery.WatchStatus { return w.manager.Statuses()[0] }

// Set returns the last set.
func (w *Watched) Set() []discovery.Instance {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.set
}

// Had reports whether a set was handed on.
func (w *Watched) Had(set string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.sets, set)
}

// Await waits until the last set is want, and the last query has failed with an error that contains
// failure; empty: it has not failed.
func (w *Watched) Await(want, failure string) {
	w.t.Helper()
	w.AwaitStatus(fmt.Sprintf("the set %q, the error %q", want, failure), func(s discovery.WatchStatus) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.sets) > 0 && w.sets[len(w.sets)-1] == want && strings.Contains(s.LastError, failure) && (failure != "" || s.LastError == "")
	})
}

// AwaitStatus waits until the status meets a condition.
func (w *Watched) AwaitStatus(what string, holds func(discovery.WatchStatus) bool) {
	w.t.Helper()
	consultest.Await(w.t, what, func() bool { return holds(w.Status()) })
}
