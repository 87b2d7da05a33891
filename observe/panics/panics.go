// Package panics keeps a panic to the goroutine in which it happens. Each goroutine of sluice
// begins with a deferred [Contain]: the connection, the exchange or the watch that the
// goroutine serves fails, and everything else goes on. In tests a panic ends the process, as
// anywhere else in Go.
package panics

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A Place is the kind of goroutine in which a panic happened.
type Place uint8

const (
	Connection Place = iota // of a client
	Stream                  // a request of HTTP/2
	Exchange                // a goroutine that helps with a request, such as the one that sends its body
	Tunnel                  // one direction of a tunnel, or a connection of a listener for TCP
	Mirror                  // a copy of a request
	Peer                    // a connection of HTTP/2 to a peer, or a dial
	Sweep                   // a look at one connection for its timeouts
	Probe                   // a health check
	Watch                   // of a registry, a document or a file
	Admin                   // a request of the admin API
	Task                    // other work in the background

	// NumPlaces is the number of places; they count from 0.
	NumPlaces = int(Task) + 1
)

// String returns the name of p, as in metrics.
func (p Place) String() string {
	return [NumPlaces]string{"connection", "stream", "exchange", "tunnel", "mirror", "peer", "sweep", "probe", "watch", "admin", "task"}[p]
}

// A Contained is a panic that ended only what its goroutine served.
type Contained struct {
	Place Place
	Value string // of the panic
	Stack []byte // of its goroutine
	// Unreported is how many panics at this place were counted and not reported since the one
	// before.
	Unreported uint64
}

// Fatal says that a panic ends the process. It is set in tests, where a panic must be seen; a
// test of what follows a panic clears it.
var Fatal atomic.Bool

func init() { Fatal.Store(testing.Testing()) }

// Err is the error of what has panicked, for who waits for it.
var Err = errors.New("sluice has panicked: its log has the stack")

// reportEvery bounds the reports of each place: a client may be able to cause any number of
// panics, and a stack is long.
const reportEvery = time.Second

var places [NumPlaces]struct {
	total      atomic.Uint64
	unreported atomic.Uint64
	next       atomic.Int64 // when the next panic is reported, by the wall clock
}

// Total returns the number of panics at a place since the start of the process.
func Total(at Place) uint64 { return places[at].total.Load() }

var (
	mu sync.Mutex
	// mu guards the field below.
	observers = make(map[*func(Contained)]struct{})
)

// Observe calls report for the panics from now on, at most one in a second for each place,
// until stop is called. It may be called concurrently. Without an observer they are written to
// the standard error.
func Observe(report func(Contained)) (stop func()) {
	mu.Lock()
	defer mu.Unlock()
	observers[&report] = struct{}{}
	return func() {
		mu.Lock()
		defer mu.Unlock()
		delete(observers, &report)
	}
}

// Contain is deferred at the start of a goroutine. If the goroutine panics, it counts and
// reports that, and calls fail, if that is not nil, which ends what the goroutine serves and
// gives back what it holds. The functions that were deferred later have run before, so a mutex
// whose unlocking is deferred is free. A panic in fail itself is contained too.
func Contain(at Place, fail func()) {
	value := recover()
	if value == nil {
		return
	}
	if Fatal.Load() {
		panic(value)
	}
	record(at, value)
	if fail != nil {
		defer Contain(at, nil)
		fail()
	}
}

// Repeat calls run until it returns, and again after pause each time it has panicked, unless
// done is closed.
func Repeat(done <-chan struct{}, at Place, pause time.Duration, run func()) {
	for panicked(at, run) {
		select {
		case <-time.After(pause):
		case <-done:
			return
		}
	}
}

// Start begins each task in a goroutine, and again a second after it has panicked. stop ends the
// context of the tasks, and waits until they have returned.
func Start(ctx context.Context, at Place, tasks ...func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	for _, task := range tasks {
		running.Go(func() { Repeat(ctx.Done(), at, time.Second, func() { task(ctx) }) })
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// Running is what Start has begun, until it is ended. A mutex of its owner guards it. The zero
// value does not run.
type Running struct{ stop func() }

// Runs reports whether r has begun, and was not ended since.
func (r *Running) Runs() bool { return r.stop != nil }

// Begin is Start, for a task that does not run.
func (r *Running) Begin(ctx context.Context, at Place, tasks ...func(context.Context)) {
	r.stop = Start(ctx, at, tasks...)
}

// End ends r, if it runs, and waits for that.
func (r *Running) End() { r.Detach()() }

// Detach returns what ends r, if it runs, and waits for that: for an owner whose mutex r may need
// to end. From now on r does not run for its owner.
func (r *Running) Detach() (end func()) {
	if end = r.stop; end == nil {
		end = func() {}
	}
	r.stop = nil
	return end
}

// panicked calls run, and reports whether it has panicked.
func panicked(at Place, run func()) (did bool) {
	defer Contain(at, func() { did = true })
	run()
	return false
}

// record counts a panic, and reports it if it is time.
func record(at Place, value any) {
	p := &places[at]
	p.total.Add(1)
	now, next := time.Now().UnixNano(), p.next.Load()
	if now < next || !p.next.CompareAndSwap(next, now+int64(reportEvery)) {
		p.unreported.Add(1)
		return
	}
	c := Contained{Place: at, Value: fmt.Sprint(value), Stack: debug.Stack(), Unreported: p.unreported.Swap(0)}
	for _, report := range allObservers() {
		report(c)
	}
}

func allObservers() (reports []func(Contained)) {
	mu.Lock()
	defer mu.Unlock()
	for report := range observers {
		reports = append(reports, *report)
	}
	if len(reports) == 0 {
		reports = append(reports, func(c Contained) { fmt.Fprintf(os.Stderr, "panic at %s: %s\n%s", c.Place, c.Value, c.Stack) })
	}
	return reports
}
