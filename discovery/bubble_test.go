package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/test/parallel"
	"sluice/test/verify"
)

// scripted is a source that reports what the test passes.
type scripted struct {
	reports chan reports
	before  chan WatchState // what it got when it began
	ended   chan struct{}
}

func newScripted() *scripted {
	return &scripted{reports: make(chan reports, 1), before: make(chan WatchState, 1), ended: make(chan struct{})}
}

// reports is the report function of a source.
type reports func(Report)

func (r reports) set(set []Instance)                 { r.setAt(0, set) }
func (r reports) setAt(index uint64, set []Instance) { r(Report{Set: set, Known: true, Index: index}) }
func (r reports) fail(text string)                   { r(Report{Err: errors.New(text)}) }

func (s *scripted) Run(ctx context.Context, before WatchState, report func(Report)) error {
	defer close(s.ended)
	s.before <- before
	s.reports <- report
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

// instances returns passing instances of weight 1.
func instances(ids ...string) []Instance {
	var set []Instance
	for _, id := range ids {
		set = append(set, Instance{Service: "star", ID: id, Node: "n", Address: "10.0.0.1", Port: 80, Weight: 1})
	}
	return set
}

// bubble runs a manager in virtual time.
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
			Debounce: Debounce{Quiet: 100 * time.Millisecond, MaxWait: time.Second},
			Log:      zerolog.New(&b.log).Level(zerolog.InfoLevel),
			Fallback: func(service, source, _ string) (WatchState, bool) {
				if b.fallback == nil {
					return WatchState{}, false
				}
				set, asOf, ok := b.fallback(service, source)
				return WatchState{Source: source, Known: ok, Set: set, Restored: asOf}, ok
			},
			Sink: func(set Set) {
				b.mu.Lock()
				b.calls = append(b.calls, call{time.Since(b.begin), set.Service, describe(set.Instances)})
				b.mu.Unlock()
				time.Sleep(b.slow)
			},
		})
		parallel.Run(t, func(ctx context.Context) {
			err := b.Run(ctx)
			verify.That(t, errors.Is(err, context.Canceled), "Run: %v", err)
		})
		f(t, b)
	})
}

func (b *bubble) start(service string) reports {
	s := newScripted()
	b.Watch(service, s)
	return <-s.reports
}

// status returns the status of the only watch.
func (b *bubble) status() WatchStatus {
	b.t.Helper()
	all := b.Statuses()
	verify.Require(b.t, len(all) == 1, "%d watches", len(all))
	return all[0]
}

// startWith is start with a first set, which is passed on at once.
func (b *bubble) startWith(ids ...string) reports {
	b.t.Helper()
	w := b.start("star")
	w.set(instances(ids...))
	b.expect(0, call{0, "star", strings.Join(ids, " ")})
	return w
}

// expect waits until at after the start and checks what Sink got since the
// last check.
func (b *bubble) expect(at time.Duration, want ...call) {
	b.t.Helper()
	time.Sleep(time.Until(b.begin.Add(at)))
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	verify.Slices(b.t, b.calls, want, "by %v Sink", at)
	b.calls = nil
}

const ms = time.Millisecond
