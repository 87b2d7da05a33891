package discovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/observe/panics"
	"sluice/test/parallel"
	"sluice/test/verify"
)

func TestErrorKeepsTheSet(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.start("star")
		verify.Equal(t, b.status().State, WatchPending, "state")
		w.fail("connection refused")
		s := b.status()
		verify.That(t, s.State == WatchPending && s.LastError == "connection refused" && s.Errors == 1, "after a first error: %+v", s)
		w.setAt(7, instances("a"))
		b.expect(0, call{0, "star", "a"})
		s = b.status()
		verify.That(t, s.State == WatchFresh && s.Index == 7 && s.Queries == 2 && s.LastError == "", "after a success: %+v", s)

		b.expect(time.Minute)
		w.fail("500")
		w.fail("500")
		b.expect(2 * time.Minute)
		s = b.status()
		verify.That(t, s.State == WatchStale && s.Instances == 1 && s.Errors == 3 && s.LastError == "500", "after errors: %+v", s)
		verify.Equal(t, s.Since.Sub(b.begin), time.Minute, "stale since")
		w.setAt(8, instances("a"))
		log := b.log.String()
		verify.Equal(t, strings.Count(log, `"instances_in_use":`), 2, "failures, one for each outage, in %s", log)
		verify.Equal(t, strings.Count(log, `"after":`), 2, "recoveries in %s", log)
	})
}

func TestReplacedSourceKeepsTheSet(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		first := newScripted()
		b.Watch("star", first)
		old := <-first.reports
		old.setAt(3, instances("a"))
		b.expect(0, call{0, "star", "a"})
		old.set(instances("a", "b")) // waits

		second := newScripted()
		b.Watch("star", second)
		w := <-second.reports
		<-first.ended
		s := b.status()
		verify.That(t, s.State == WatchStale && s.Instances == 2 && s.Changes == 1, "after the replacement: %+v", s)
		before := <-second.before
		verify.Equal(t, describe(before.Set), "a b", "what it knows")
		old.setAt(9, nil)
		b.expect(1500*ms, call{100 * ms, "star", "a b"})
		w.setAt(1, instances("b"))
		b.expect(1500*ms, call{1500 * ms, "star", "b"})
		s = b.status()
		verify.That(t, s.State == WatchFresh && s.Index == 1, "after its answer: %+v", s)
	})
}

// A source may say the same again while Sink has the first set. Sink gets it once, and who awaits
// the source waits until Sink has returned.
func TestSameFirstSetWhileSinkRuns(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.slow = time.Second
		w := b.start("star")
		w.set(instances("a"))
		b.expect(500*ms, call{0, "star", "a"})
		w.set(instances("a"))
		b.AwaitSources(t.Context(), time.Minute, "star")
		verify.Equal(t, time.Since(b.begin), time.Second, "time when Sink has the set")
		b.expect(time.Minute)
	})
}

// A set that waits when its source is replaced is of that source.
func TestSetsAreFromTheirSource(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		from := make(map[string]string) // by set
		sink := b.options.Sink
		b.options.Sink = func(set Set) {
			from[describe(set.Instances)] = set.Source
			sink(set)
		}
		first, second := newScripted(), newScripted()
		b.Watch("star", first)
		old := <-first.reports
		old.set(instances("a"))
		b.expect(0, call{0, "star", "a"})
		old.set(instances("a", "b"))
		b.Watch("star", struct {
			Source
			fmt.Stringer
		}{second, time.Hour})
		w := <-second.reports
		b.expect(time.Second, call{100 * ms, "star", "a b"})
		w.set(instances("c"))
		b.expect(time.Second, call{time.Second, "star", "c"})
		verify.That(t, from["a"] == NameOf(first) && from["a b"] == NameOf(first) && from["c"] == "1h0m0s", "the sources are %v", from)

		third := newScripted() // whose first set is the one that Sink has got last
		b.Watch("star", third)
		w = <-third.reports
		w.set(instances("c"))
		b.expect(time.Second, call{time.Second, "star", "c"})
		verify.Equal(t, from["c"], NameOf(third), "source")
		w.set(instances("c"))
		b.expect(2 * time.Second)
	})
}

func TestUnwatchStopsTheSource(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		s := newScripted()
		b.Watch("star", s)
		w := <-s.reports
		w.set(instances("a"))
		b.expect(0, call{0, "star", "a"})
		w.set(instances("a", "b"))
		b.Unwatch("star")
		b.Unwatch("star")
		<-s.ended
		w.set(nil)
		b.expect(5 * time.Second)
		got := b.Statuses()
		verify.That(t, len(got) == 0, "statuses after Unwatch: %v", got)

		unstarted := newScripted() // unwatched before Run could start it
		b.Watch("star", unstarted)
		b.Unwatch("star")
		b.expect(5 * time.Second)
	})
}

func TestEndedSourceIsReported(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.Watch("star", sourceFunc(func(context.Context, WatchState, func(Report)) error { return errors.New("no such region") }))
		b.expect(0)
		s := b.status()
		verify.That(t, s.LastError == "the watch ended: no such region" && s.Source == "discovery.sourceFunc", "status: %+v", s)
	})
}

func TestRunMayBeCalledOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		synctest.Wait()
		err := b.Run(t.Context())
		verify.That(t, err != nil, "the second Run returned no error")
	})
}

// TestSinkIsCalledInOrder reports from several goroutines to each of several services. Calls
// of Sink must not overlap, must not return to an older set, and must end with the last set.
func TestSinkIsCalledInOrder(t *testing.T) {
	const services, rounds = 8, 200
	var inSink sync.Mutex
	last := make(map[string]int)
	done := make(chan struct{})
	m := NewManager(ManagerOptions{
		Debounce: Debounce{Quiet: time.Millisecond, MaxWait: 5 * time.Millisecond},
		Sink: func(set Set) {
			if !inSink.TryLock() {
				t.Error("calls of Sink overlap")
				return
			}
			defer inSink.Unlock()
			port := set.Instances[0].Port
			verify.That(t, port >= last[set.Service], "%s went back from %d to %d", set.Service, last[set.Service], port)
			last[set.Service] = port
			for _, port := range last {
				if port != rounds {
					return
				}
			}
			if len(last) == services {
				close(done)
			}
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	for n := range services {
		s := newScripted()
		m.Watch(fmt.Sprint("service-", n), s)
		random := rand.New(rand.NewPCG(1, uint64(n)))
		all.Go(func() {
			w := <-s.reports
			for port := 1; port <= rounds; port++ {
				set := instances("a")
				set[0].Port = port
				if random.IntN(2) == 0 {
					set[0].Port, set[0].Weight = port, port // an update or, by its port, a removal
				}
				w.set(set)
				m.Statuses()
			}
		})
	}
	all.Go(func() { m.Run(ctx) })
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("the last sets did not arrive within a minute")
	}
	cancel()
	all.Wait()
}

// A panic about the set of one service neither keeps others from theirs, nor this one from its
// next.
func TestSinkThatPanics(t *testing.T) {
	panics.Fatal.Store(false)
	defer panics.Fatal.Store(true)
	inBubble(t, func(t *testing.T, b *bubble) {
		sink := b.options.Sink
		b.options.Sink = func(set Set) {
			if describe(set.Instances) == "fault" {
				panic("a fault")
			}
			sink(set)
		}
		star, moon := b.start("star"), b.start("moon")
		star.set(instances("fault"))
		moon.set(instances("a"))
		b.expect(0, call{0, "moon", "a"})
		star.set(instances("b"))
		b.expect(0, call{0, "star", "b"})
	})
}

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
		parallel.Run(t, func(ctx context.Context) { _ = m.Run(ctx) })
		ctx := t.Context()
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

		// The first report of any new source has no debounce either, and can be awaited. A
		// service without a source is not awaited.
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
