package discovery

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

// A configuration is in effect when AwaitSources returns: no static set waits for its
// debounce, even one that replaces another source's.
func TestAwaitStatic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		m := NewManager(ManagerOptions{
			Debounce: Debounce{Quiet: time.Minute, MaxWait: time.Hour},
			Sink: func(set Set) {
				time.Sleep(time.Second) // a slow one
				got = append(got, describe(set.Instances))
			},
		})
		static := func(texts ...string) *Static { return NewStatic("star", peers(t, texts...)) }
		m.Watch("star", static("a:1"))
		m.AwaitSources(t.Context(), time.Hour) // without Run
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait() // Sink may have a set
		defer cancel()
		running.Go(func() { _ = m.Run(ctx) }) // ends with ctx
		synctest.Wait()

		for _, peers := range [][]string{{"a:1"}, {"b:1"}, {"b:1", "c:1"}, {"b:1", "c:1"}, {"b:1", "c:1", "d:1"}} {
			m.Watch("star", static(peers...))
			begin := time.Now()
			m.AwaitSources(ctx, time.Hour)
			want := describe(static(peers...).set)
			verify.That(t, got != nil && got[len(got)-1] == want, "Sink has got %q, want %q last", got, want)
			took := time.Since(begin)
			verify.That(t, took <= 2*time.Second, "%v: it waited %v, Sink takes a second", peers, took)
		}
		verify.Slices(t, got, []string{"a:1", "a:1", "b:1", "b:1 c:1", "b:1 c:1", "b:1 c:1 d:1"}, "Sink")

		m.Watch("star", newScripted()) // never reports
		m.Watch("sun", static("e:1"))
		m.Unwatch("sun")
		m.AwaitSources(ctx, time.Hour)

		// The first report of any new source has no debounce either, and can be awaited; a service
		// without one is not.
		m.Watch("moon", NewStatic("moon", peers(t, "f:1")))
		m.AwaitSources(ctx, time.Hour)
		m.Watch("moon", NewStatic("moon", peers(t, "f:1", "g:1")))
		begin := time.Now()
		m.AwaitSources(ctx, time.Hour, "moon", "sun")
		verify.That(t, got[len(got)-1] == "f:1 g:1" && time.Since(begin) <= 2*time.Second, "Sink has got %q after %v", got, time.Since(begin))
		begin = time.Now()
		m.AwaitSources(ctx, time.Hour, "star")
		verify.Equal(t, time.Since(begin), time.Hour, "the wait for star, whose source has not reported")
	})
}
