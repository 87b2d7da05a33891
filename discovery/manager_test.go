package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// scripted is a source that a test speaks through.
type scripted struct {
	watch chan *Watch
	ended chan struct{}
}

func newScripted() *scripted {
	return &scripted{watch: make(chan *Watch, 1), ended: make(chan struct{})}
}

func (s *scripted) Run(ctx context.Context, w *Watch) error {
	defer close(s.ended)
	s.watch <- w
	<-ctx.Done()
	return ctx.Err()
}

// call is one call of Sink.
type call struct {
	after   time.Duration // since the start of the test
	service string
	set     string // "a b(critical)"
}

func describe(set []Instance) string {
	words := make([]string, len(set))
	for n, i := range set {
		words[n] = i.ID
		if i.Status != StatusPassing {
			words[n] += "(" + i.Status.String() + ")"
		}
		if i.Weight != 1 && i.Serving() {
			words[n] += fmt.Sprintf("*%d", i.Weight)
		}
	}
	return strings.Join(words, " ")
}

// instances makes passing instances of weight 1.
func instances(ids ...string) []Instance {
	var set []Instance
	for _, id := range ids {
		set = append(set, Instance{Service: "star", ID: id, Node: "n", Address: "10.0.0.1", Port: 80, Weight: 1})
	}
	return set
}

// bubble runs a manager in a synctest bubble.
type bubble struct {
	*Manager
	t     *testing.T
	begin time.Time
	mu    sync.Mutex
	calls []call
	log   bytes.Buffer
	slow  time.Duration // how long Sink takes

	fallback func(service, source string) ([]Instance, time.Time, bool)
}

func inBubble(t *testing.T, f func(t *testing.T, b *bubble)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, begin: time.Now()}
		b.Manager = NewManager(ManagerOptions{
			Log: zerolog.New(&b.log).Level(zerolog.InfoLevel),
			Fallback: func(service, source string) ([]Instance, time.Time, bool) {
				if b.fallback == nil {
					return nil, time.Time{}, false
				}
				return b.fallback(service, source)
			},
			Sink: func(service string, set []Instance) {
				b.mu.Lock()
				b.calls = append(b.calls, call{time.Since(b.begin), service, describe(set)})
				b.mu.Unlock()
				time.Sleep(b.slow)
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() {
			if err := b.Run(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
		})
		f(t, b)
		cancel()
		run.Wait()
	})
}

func (b *bubble) start(service string) *Watch {
	s := newScripted()
	b.Watch(service, s)
	return <-s.watch
}

// expect waits until at after the start and checks what Sink got since the
// last check.
func (b *bubble) expect(at time.Duration, want ...call) {
	b.t.Helper()
	time.Sleep(time.Until(b.begin.Add(at)))
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.calls, want) {
		b.t.Errorf("by %v Sink got %v, want %v", at, b.calls, want)
	}
	b.calls = nil
}

const ms = time.Millisecond

func TestFirstSetActsAtOnceEvenWhenEmpty(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("star").Emit(instances("b", "a"))
		b.start("moon").Emit(nil)
		b.expect(0, call{0, "star", "a b"}, call{0, "moon", ""})
		for _, s := range b.Statuses() {
			if s.Changes != 1 {
				t.Errorf("%s: %d changes, want 1", s.Service, s.Changes)
			}
		}
	})
}

func TestUnchangedSetIsNoEvent(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.start("star")
		w.Emit(instances("a", "b"))
		b.expect(0, call{0, "star", "a b"})
		w.Emit(instances("b", "a"))
		b.expect(5 * time.Second)
	})
}

func TestUnchangedSetDoesNotProlongTheWait(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.start("star")
		w.Emit(instances("a"))
		b.expect(0, call{0, "star", "a"})
		w.Emit(instances("a", "b"))
		b.expect(90 * ms)
		w.Emit(instances("b", "a"))
		b.expect(100*ms, call{100 * ms, "star", "a b"})
	})
}

func TestBurstOfAdditionsIsBatched(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.start("star")
		w.Emit(nil)
		b.expect(0, call{0, "star", ""})
		b.expect(2000 * ms)

		w.Emit(instances("a")) // after calm: at once
		b.expect(2050*ms, call{2000 * ms, "star", "a"})
		w.Emit(instances("a", "b"))
		b.expect(2100 * ms)
		w.Emit(instances("a", "b", "c"))
		b.expect(2500*ms, call{2200 * ms, "star", "a b c"})
	})
}

func TestSteadyAdditionsWaitAtMostMaxWait(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.start("star")
		w.Emit(instances("a"))
		b.expect(0, call{0, "star", "a"})
		for n := range 12 { // from 50 ms to 985 ms, never quiet
			b.expect(time.Duration(50+85*n) * ms)
			set := instances("a")
			set[0].Weight = 2 + n
			w.Emit(set)
		}
		b.expect(1049 * ms)
		b.expect(1050*ms, call{1050 * ms, "star", "a*13"})
	})
}

func TestRemovalActsAtOnceAndTakesTheBurstAlong(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.start("star")
		w.Emit(instances("a", "b"))
		b.expect(0, call{0, "star", "a b"})
		w.Emit(instances("a", "b", "c"))
		b.expect(20 * ms)
		w.Emit(instances("b", "c"))
		b.expect(2000*ms, call{20 * ms, "star", "b c"})
	})
}

// In a rolling deploy one instance goes as another comes.
func TestAdditionSoonAfterRemovalActsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.start("star")
		w.Emit(instances("a", "b"))
		b.expect(0, call{0, "star", "a b"})
		b.expect(500 * ms)
		w.Emit(instances("b"))
		b.expect(502*ms, call{500 * ms, "star", "b"})
		w.Emit(instances("b", "c"))
		b.expect(520*ms, call{502 * ms, "star", "b c"})
		w.Emit(instances("b", "c", "d"))
		b.expect(619 * ms)
		b.expect(900*ms, call{620 * ms, "star", "b c d"})
		w.Emit(instances("c", "d", "e")) // both at once: the addition counts
		b.expect(910*ms, call{900 * ms, "star", "c d e"})
		w.Emit(instances("c", "d", "e", "f"))
		b.expect(1009 * ms)
		b.expect(1010*ms, call{1010 * ms, "star", "c d e f"})
	})
}

func TestOutOfServiceActsAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Instance)
		want   string
	}{
		{"critical", func(i *Instance) { i.Status, i.Weight = StatusCritical, 0 }, "a(critical) b"},
		{"critical with a weight", func(i *Instance) { i.Status = StatusCritical }, "a(critical) b"},
		{"maintenance", func(i *Instance) { i.Status, i.Weight = StatusMaintenance, 0 }, "a(maintenance) b"},
		{"warning without weight", func(i *Instance) { i.Status, i.Weight = StatusWarning, 0 }, "a(warning) b"},
		{"weight 0", func(i *Instance) { i.Weight = 0 }, "a b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				w := b.start("star")
				w.Emit(instances("a", "b"))
				b.expect(0, call{0, "star", "a b"})
				set := instances("a", "b")
				tt.change(&set[0])
				b.expect(10 * ms)
				w.Emit(set)
				b.expect(10*ms, call{10 * ms, "star", tt.want})
			})
		})
	}
}

// A pool whose active checks overrule a critical status still uses the
// instance, until it is in maintenance mode.
func TestOtherReasonToBeOutOfServiceActsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.start("star")
		set := instances("a")
		set[0].Status = StatusCritical
		w.Emit(set)
		b.expect(0, call{0, "star", "a(critical)"})
		b.expect(10 * ms)
		set = instances("a")
		set[0].Status = StatusMaintenance
		w.Emit(set)
		b.expect(10*ms, call{10 * ms, "star", "a(maintenance)"})
		set = instances("a")
		set[0].Status, set[0].Detail = StatusMaintenance, "another word"
		w.Emit(set)
		b.expect(109 * ms)
		b.expect(110*ms, call{110 * ms, "star", "a(maintenance)"})
	})
}

func TestUpdateThatStaysInServiceWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.start("star")
		w.Emit(instances("a"))
		b.expect(0, call{0, "star", "a"})
		set := instances("a")
		set[0].Status, set[0].Weight = StatusWarning, 5
		w.Emit(set)
		b.expect(99 * ms)
		b.expect(100*ms, call{100 * ms, "star", "a(warning)*5"})
	})
}

func TestFlappingAdditionCancelsItself(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.start("star")
		w.Emit(instances("a"))
		b.expect(0, call{0, "star", "a"})
		w.Emit(instances("a", "b"))
		b.expect(50 * ms)
		w.Emit(instances("a"))
		b.expect(3000 * ms)
		w.Emit(instances("a", "b")) // a new burst: calm, so at once
		b.expect(3000*ms, call{3000 * ms, "star", "a b"})
	})
}

func TestServicesDoNotDelayEachOther(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		star, moon := b.start("star"), b.start("moon")
		star.Emit(instances("a"))
		moon.Emit(instances("a"))
		b.expect(0, call{0, "star", "a"}, call{0, "moon", "a"})
		star.Emit(instances("a", "b"))
		b.expect(40 * ms)
		moon.Emit(instances("a", "b"))
		b.expect(60 * ms)
		moon.Emit(instances("a"))
		b.expect(1000*ms, call{100 * ms, "star", "a b"})
	})
}

func TestSlowSinkGetsTheLatestSet(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.slow = time.Second
		w := b.start("star")
		w.Emit(instances("a", "b", "c"))
		b.expect(10*ms, call{0, "star", "a b c"})
		w.Emit(instances("a", "b"))
		w.Emit(instances("a"))
		b.expect(5*time.Second, call{1000 * ms, "star", "a"})
	})
}

func TestErrorKeepsTheSet(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.start("star")
		if s := w.Status(); s.State != WatchPending {
			t.Errorf("state %v, want pending", s.State)
		}
		w.Failed(errors.New("connection refused"))
		if s := w.Status(); s.State != WatchPending || s.LastError != "connection refused" || s.Errors != 1 {
			t.Errorf("after a first error: %+v", s)
		}
		w.Emit(instances("a"))
		w.Succeeded(7)
		b.expect(0, call{0, "star", "a"})
		if s := w.Status(); s.State != WatchFresh || s.Index != 7 || s.Queries != 2 || s.LastError != "" {
			t.Errorf("after a success: %+v", s)
		}

		b.expect(time.Minute)
		w.Failed(errors.New("500"))
		w.Failed(errors.New("500"))
		b.expect(2 * time.Minute)
		s := b.Statuses()[0]
		if s.State != WatchStale || s.Instances != 1 || s.Errors != 3 || s.LastError != "500" {
			t.Errorf("after errors: %+v", s)
		}
		if got := s.Since.Sub(b.begin); got != time.Minute {
			t.Errorf("stale since %v, want 1m", got)
		}
		w.Succeeded(8)
		if got, want := strings.Count(b.log.String(), "watch failing"), 2; got != want {
			t.Errorf("%d lines about failing, want one per outage, %d:\n%s", got, want, b.log.String())
		}
		if got, want := strings.Count(b.log.String(), "watch recovered"), 2; got != want {
			t.Errorf("%d lines about recovery, want %d:\n%s", got, want, b.log.String())
		}
	})
}

func TestReplacedSourceKeepsTheSet(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		first := newScripted()
		b.Watch("star", first)
		old := <-first.watch
		old.Emit(instances("a"))
		old.Succeeded(3)
		b.expect(0, call{0, "star", "a"})
		old.Emit(instances("a", "b")) // waits

		w := b.start("star")
		<-first.ended
		if s := w.Status(); s.State != WatchStale || s.Instances != 2 || s.Changes != 1 {
			t.Errorf("a replacing watch: %+v", s)
		}
		if set, known := w.Instances(); !known || describe(set) != "a b" {
			t.Errorf("it knows %q, %v", describe(set), known)
		}
		old.Emit(nil)
		old.Succeeded(9)
		b.expect(1500*ms, call{100 * ms, "star", "a b"})
		w.Emit(instances("b"))
		w.Succeeded(1)
		b.expect(1500*ms, call{1500 * ms, "star", "b"})
		if s := w.Status(); s.State != WatchFresh || s.Index != 1 {
			t.Errorf("after its answer: %+v", s)
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
					w.Failed(errors.New("refused"))
				}
				b.expect(2*time.Second, call{tt.at, "star", "a b"})
				s := w.Status()
				if s.State != WatchStale || !s.Restored.Equal(asOf) || s.Instances != 2 || !s.LastSuccess.IsZero() {
					t.Errorf("status %+v", s)
				}
				if got := strings.Count(b.log.String(), "the saved set is used"); got != 1 {
					t.Errorf("%d lines about it:\n%s", got, b.log.String())
				}
				w.Failed(errors.New("refused"))
				w.Emit(instances("a", "b"))
				w.Succeeded(1)
				b.expect(3 * time.Second) // it was the truth
				if s := w.Status(); s.State != WatchFresh || !s.Restored.IsZero() {
					t.Errorf("after a report: %+v", s)
				}
			})
		})
	}
}

func TestFallbackIsNotUsedAfterAReport(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.fallback = func(string, string) ([]Instance, time.Time, bool) { return instances("old"), time.Now(), true }
		w := b.start("star")
		w.Emit(nil)
		w.Failed(errors.New("refused"))
		b.expect(5*time.Second, call{0, "star", ""})
		b.Unwatch("star")
		b.start("star")
		b.Unwatch("star")
		b.expect(10 * time.Second)
	})
}

func TestUnwatchStopsTheSource(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		s := newScripted()
		b.Watch("star", s)
		w := <-s.watch
		w.Emit(instances("a"))
		b.expect(0, call{0, "star", "a"})
		w.Emit(instances("a", "b"))
		b.Unwatch("star")
		b.Unwatch("star")
		<-s.ended
		w.Emit(nil)
		b.expect(5 * time.Second)
		if got := b.Statuses(); len(got) != 0 {
			t.Errorf("statuses after Unwatch: %v", got)
		}

		unstarted := newScripted() // unwatched before Run could start it
		b.Watch("star", unstarted)
		b.Unwatch("star")
		b.expect(5 * time.Second)
	})
}

func TestSetDebounceCountsForWhatWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.start("star")
		w.Emit(instances("a"))
		b.expect(0, call{0, "star", "a"})
		w.Emit(instances("a", "b"))
		b.expect(10 * ms)
		b.SetDebounce(Debounce{Quiet: 500 * ms, MaxWait: 2 * time.Second})
		b.expect(499 * ms)
		b.expect(500*ms, call{500 * ms, "star", "a b"})
		b.SetDebounce(Debounce{Quiet: -1})
		w.Emit(instances("a", "b", "c"))
		b.expect(500*ms, call{500 * ms, "star", "a b c"})
	})
}

type failingSource struct{}

func (failingSource) Run(context.Context, *Watch) error { return errors.New("no such region") }

func TestSourceThatGivesUpIsReported(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.Watch("star", failingSource{})
		b.expect(0)
		if s := b.Statuses()[0]; s.LastError != "the watch ended: no such region" || s.Source != "discovery.failingSource" {
			t.Errorf("status: %+v", s)
		}
	})
}

func TestStaticSource(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		s, err := NewStatic("origin", []string{"127.0.0.1:2", "127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		b.Watch("origin", s)
		b.expect(0, call{0, "origin", "127.0.0.1:1 127.0.0.1:2"})
		if s := b.Statuses()[0]; s.State != WatchFresh || s.Source != "static" || s.Instances != 2 {
			t.Errorf("status: %+v", s)
		}
	})
}

func TestRunMayBeCalledOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		synctest.Wait()
		if err := b.Run(t.Context()); err == nil {
			t.Error("the second Run returned no error")
		}
	})
}

// TestSinkIsCalledInOrder lets several goroutines report to each of several
// services: Sink must never run twice at a time, never go back to an older
// set of a service, and must get the last one.
func TestSinkIsCalledInOrder(t *testing.T) {
	const services, rounds = 8, 200
	var inSink sync.Mutex
	last := make(map[string]int)
	done := make(chan struct{})
	m := NewManager(ManagerOptions{
		Debounce: Debounce{Quiet: time.Millisecond, MaxWait: 5 * time.Millisecond},
		Sink: func(service string, set []Instance) {
			if !inSink.TryLock() {
				t.Error("two calls of Sink at a time")
				return
			}
			defer inSink.Unlock()
			if set[0].Port < last[service] {
				t.Errorf("%s went back from %d to %d", service, last[service], set[0].Port)
			}
			last[service] = set[0].Port
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
		all.Go(func() {
			w := <-s.watch
			for port := 1; port <= rounds; port++ {
				set := instances("a")
				set[0].Port = port
				if rand.IntN(2) == 0 {
					set[0].Port, set[0].Weight = port, port // an update or, by its port, a removal
				}
				w.Emit(set)
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

// BenchmarkHandOver measures the way from Emit of a removal to Sink.
func BenchmarkHandOver(b *testing.B) {
	got := make(chan struct{})
	m := NewManager(ManagerOptions{Sink: func(string, []Instance) { got <- struct{}{} }})
	s := newScripted()
	m.Watch("star", s)
	ctx, cancel := context.WithCancel(b.Context())
	var run sync.WaitGroup
	run.Go(func() { m.Run(ctx) })
	w := <-s.watch
	port := 0
	b.ReportAllocs()
	for b.Loop() {
		port++
		set := instances("a", "b", "c", "d", "e")
		set[0].Port = port
		w.Emit(set)
		<-got
	}
	cancel()
	run.Wait()
}
