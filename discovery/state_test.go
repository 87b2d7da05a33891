package discovery

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

// A process continues with the sets and the states of another process.
func TestAdoptedSetIsUsedAtOnce(t *testing.T) {
	asOf := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.start("star")
		w(Report{Set: instances("a", "b"), Known: true, Endpoint: "http://c", Index: 7})
		b.expect(0, call{0, "star", "a b"})
		w.fail("500")
		b.Watch("fixed", &Static{})
		b.start("later") // knows nothing yet
		b.expect(0, call{0, "fixed", ""})

		next := NewManager(ManagerOptions{Sink: func(Set) {}})
		handed := b.Save()
		h := handed["star"]
		verify.That(t, !h.Fresh && h.Known && h.Endpoint == "http://c" && h.LastSuccess.Equal(b.begin) && len(handed) == 2, "handed %+v of %d", h, len(handed))
		h.Fresh, h.Restored = true, asOf
		handed["star"] = h
		next.Restore(handed)
		next.WatchAll(map[string]Source{"star": newScripted(), "later": sourceFunc(nil), "fixed": &Static{}})
		state, ok := next.Former("star")
		verify.That(t, ok && state.Known, "the process before had %+v, %t", state, ok)
		_, ok = next.Former("fixed")
		verify.That(t, !ok, "the process before had a watch of static peers")
		for _, s := range next.Statuses() {
			adopted := s.State == WatchFresh && s.Instances == 2 && s.Endpoint == "http://c" && s.Restored.Equal(asOf)
			pending := s.State == WatchPending
			verify.That(t, s.Service == "star" && adopted || s.Service != "star" && pending, "adopted as %+v", s)
		}
	})
}

// A set of another selection is not used.
func TestSetOfAnotherSourceIsNotAdopted(t *testing.T) {
	m := NewManager(ManagerOptions{Sink: func(Set) {}})
	m.Watch("star", newScripted(), WatchState{Source: `consul service "moon"`, Known: true, Set: instances("a")})
	state := m.States()["star"]
	verify.That(t, !state.Known, "adopted: %+v", state)
}

func TestPausedWatchesKeepTheirSets(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		runs := make(chan reports, 1)
		b.Watch("star", sourceFunc(func(ctx context.Context, _ WatchState, report func(Report)) error {
			runs <- report
			<-ctx.Done()
			return ctx.Err()
		}))
		w := <-runs
		w.setAt(1, instances("a"))
		b.expect(0, call{0, "star", "a"})
		var ended atomic.Int64
		other := sourceFunc(func(ctx context.Context, _ WatchState, _ func(Report)) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			ended.Add(1)
			return ctx.Err()
		})
		b.Watch("slow", other)
		b.expect(0)

		b.Pause()
		b.Pause()
		verify.Equal(t, ended.Load(), 1, "a source still runs")
		b.Watch("new", other)
		b.expect(time.Minute)
		st := b.Statuses()[2]
		verify.That(t, st.Service == "star" && st.State == WatchFresh && st.Instances == 1 && st.Errors == 0, "while paused %+v", st)
		b.Resume()
		again := <-runs
		again.set(instances("a", "b"))
		b.expect(time.Minute, call{time.Minute, "star", "a b"})
		b.Unwatch("slow")
		b.Unwatch("new")
	})
}

// sourceFunc is a source.
type sourceFunc func(context.Context, WatchState, func(Report)) error

func (f sourceFunc) Run(ctx context.Context, before WatchState, report func(Report)) error {
	return f(ctx, before, report)
}

// namingSource is a source whose registry names services.
type namingSource struct{ scripted }

func (*namingSource) NamesServices() {}
func (*namingSource) String() string { return "naming" }

// addressedSource is a source whose registry may be reached at several addresses.
type addressedSource struct {
	scripted
	addresses string
}

func (a *addressedSource) Addresses() string { return a.addresses }
func (*addressedSource) String() string      { return "keys below /nodes/" }

// What another cluster has at the same keys are not the instances of a new service. The same
// service keeps its set if its cluster gets another address.
func TestOtherAddressesAreAnotherRegistry(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		production := func(addresses string) Source { return &addressedSource{*newScripted(), addresses} }
		first := &addressedSource{*newScripted(), "a"}
		b.WatchAll(map[string]Source{"production": first})
		report := <-first.reports
		report.set(instances("p"))
		synctest.Wait()
		b.WatchAll(map[string]Source{"same": production("a"), "staging": production("b"), "production": production("a,c")})
		for service, known := range map[string]bool{"same": true, "staging": false, "production": true} {
			verify.Equal(t, b.States()[service].Known, known, "%s is known", service)
		}
		former := NewManager(ManagerOptions{})
		former.Restore(b.Save())
		former.WatchAll(map[string]Source{"renamed": production("a,c"), "other": production("b")})
		states := former.States()
		verify.That(t, states["renamed"].Known && !states["other"].Known, "after an upgrade: %+v", states)
	})
}

// A service that gets another name keeps its set. Its instances get the name too, unless their
// registry names them.
func TestSetOfARenamedService(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		synctest.Wait() // until Run has begun
		for _, test := range []struct {
			source func() Source
			want   string
		}{
			{func() Source { return newScripted() }, "sun"},
			{func() Source { return &namingSource{*newScripted()} }, "star"},
		} {
			set := []Instance{{Service: "star", ID: "a", Address: "10.0.0.1", Port: 80}}
			memory := []Memory{{Guard: GuardMemory{
				Departed: []Departure{{Instance: set[0]}}, Probation: []ProbationSpent{{Key: set[0].Key(), Spent: time.Minute}},
			}}}
			before, after := test.source(), test.source() // either may run
			b.Watch("star", before, WatchState{Source: NameOf(before), Known: true, Fresh: true, Set: set, Memory: memory})
			b.WatchAll(map[string]Source{"sun": after})
			state := b.States()["sun"]
			verify.That(t, state.Known && !state.Fresh && len(state.Set) == 1 && state.Set[0].Service == test.want, "%T: %+v", after, state)
			guard := state.PartOf("").Guard
			verify.Equal(t, guard.Departed[0].Instance.Service, test.want, "the service of what has departed")
			verify.Equal(t, guard.Probation[0].Key.Service, test.want, "the service of what is on probation")
			b.Unwatch("star")
			b.Unwatch("sun")
		}
	})
}

func TestFallbackServesUntilTheSourceReports(t *testing.T) {
	asOf := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	saved := func(service, source string) ([]Instance, time.Time, bool) {
		return instances("b", "a"), asOf, service == "star" && source == "*discovery.scripted"
	}
	for _, tt := range []struct {
		name string
		fail bool
		at   time.Duration
	}{{"after the first error", true, 0}, {"after a second without an answer", false, time.Second}} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				b.fallback = saved
				w := b.start("star")
				if tt.fail {
					w.fail("refused")
				}
				b.expect(2*time.Second, call{tt.at, "star", "a b"})
				s := b.status()
				verify.That(t, s.State == WatchStale && s.Restored.Equal(asOf) && s.Instances == 2 && s.LastSuccess.IsZero(), "status %+v", s)
				verify.Equal(t, strings.Count(b.log.String(), `"as_of":`), 1, "lines with as_of in %s", &b.log)
				w.fail("refused")
				w.setAt(1, instances("a", "b"))
				// It was the truth.
				b.expect(3*time.Second, call{2 * time.Second, "star", "a b"})
				s = b.status()
				verify.That(t, s.State == WatchFresh && s.Restored.IsZero(), "after a report: %+v", s)
			})
		})
	}
}

func TestFallbackIsNotUsedAfterAReport(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.fallback = func(string, string) ([]Instance, time.Time, bool) { return instances("old"), time.Now(), true }
		w := b.start("star")
		w.set(nil)
		w.fail("refused")
		b.expect(5*time.Second, call{0, "star", ""})
		b.Unwatch("star")
		b.start("star")
		b.Unwatch("star")
		b.expect(10 * time.Second)
	})
}
