package mesh

import (
	"context"
	"sync"
	"time"

	"sluice/consul"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// Kinds of config entries, of which Consul compiles chains, and that are intentions.
var (
	kindsOfChains     = []string{"service-router", "service-splitter", "service-resolver", "service-defaults", "proxy-defaults"}
	kindsOfIntentions = []string{"service-intentions"}
)

// entries tells watches that a config entry has changed, while the loops are oversubscribed.
// Then one blocking query for each kind replaces one for each service: after each change, every
// watch asks without blocking. entries reads no entry, so a token needs no right to read one.
type entries struct {
	consul  *consul.Client
	wait    func() time.Duration // of its queries
	kinds   []string
	watch   panics.Running
	changed wake.All
}

func newEntries(client *consul.Client, wait func() time.Duration, kinds []string) *entries {
	return &entries{consul: client, wait: wait, kinds: kinds}
}

// begin lets it run from now on.
func (e *entries) begin() {
	if !e.watch.Runs() {
		e.watch.Begin(context.Background(), panics.Watch, e.run)
	}
}

func (e *entries) run(ctx context.Context) {
	// It ends with ctx.
	_ = e.consul.InMode(ctx, func(mode context.Context, oversubscribed bool) error {
		if oversubscribed {
			defer panics.Start(mode, panics.Watch, e.followers()...)()
		}
		<-mode.Done()
		return context.Cause(mode)
	})
}

// followers tell of changes until their context ends. Each first answer counts as a change: there
// may have been one before. So does a failure, which the watches then find too.
func (e *entries) followers() (all []func(context.Context)) {
	for _, kind := range e.kinds {
		all = append(all, func(ctx context.Context) {
			_ = e.consul.Follow(ctx, consul.FollowOptions{ // ends with ctx
				Query: consul.Query{Path: "config/" + kind}, Wait: e.wait(), ExcludeFromCapacity: true,
				Read: func(consul.Answer, []byte) error {
					e.changed.Send()
					return nil
				},
				Ended: func(err error) {
					if err != nil {
						e.changed.Send()
					}
				},
			})
		})
	}
	return all
}

// await returns the Await of one watch, whose first query comes later.
func (e *entries) await() func(context.Context) {
	next := e.changed.Wait()
	return func(ctx context.Context) {
		if wake.Await(ctx, next) == nil {
			next = e.changed.Wait()
		}
	}
}

// watches are what is followed, by its name, each with a watch of its own.
type watches[Name comparable, F interface {
	start()
	task() *panics.Running
}] struct {
	entries *entries

	mu       sync.Mutex // guards the fields below, and those of what is followed
	paused   bool
	followed map[Name]F
}

// ending calls change with mu held, and then what it returns: a watch needs mu to end.
func (w *watches[Name, F]) ending(change func() (ends []func())) {
	locked := func() []func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		ends := change()
		if len(w.followed) == 0 {
			ends = append(ends, w.entries.watch.Detach())
		}
		return ends
	}
	for _, end := range locked() {
		end()
	}
}

// forgetLocked forgets what stays does not accept, and returns what ends its watches.
func (w *watches[Name, F]) forgetLocked(stays func(Name) bool) (ends []func()) {
	for name, f := range w.followed {
		if !stays(name) {
			delete(w.followed, name)
			ends = append(ends, f.task().Detach())
		}
	}
	return ends
}

// Pause ends all watches until Resume: a new process watches Consul.
func (w *watches[Name, F]) Pause() {
	w.ending(func() []func() {
		w.paused = true
		ends := []func(){w.entries.watch.Detach()}
		for _, f := range w.followed {
			ends = append(ends, f.task().Detach())
		}
		return ends
	})
}

// Resume begins the watches again, after Pause.
func (w *watches[Name, F]) Resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused = false
	for _, f := range w.followed {
		if !f.task().Runs() {
			f.start()
		}
	}
}
