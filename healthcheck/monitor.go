package healthcheck

import (
	"context"
	"math/rand/v2"
	"sync"
)

// DefaultMaxChecks is Options.MaxChecks when it is 0.
const DefaultMaxChecks = 512

// Options are the settings of a [Monitor].
type Options struct {
	// MaxChecks is how many active checks may run at a time, over all pools. A
	// check that hangs takes one of them for its timeout. If several pools have
	// checks, those of one are at most half of what others leave.
	MaxChecks int
	// Random is where the jitter of intervals comes from: numbers from 0 to 1,
	// without 1. It must be safe for concurrent use. Default: the generator of
	// math/rand/v2; another one is for simulations that are to be repeatable.
	Random func() float64
}

// Monitor runs the checks of many pools. It is safe for concurrent use.
type Monitor struct {
	scheduler *scheduler
	random    func() float64  // Options.Random
	ctx       context.Context // ends when the monitor is closed
	cancel    context.CancelFunc
	following sync.WaitGroup // one goroutine for each checker that is in use
}

// NewMonitor starts a monitor. It must be closed.
func NewMonitor(o Options) *Monitor {
	if o.MaxChecks <= 0 {
		o.MaxChecks = DefaultMaxChecks
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	m := &Monitor{scheduler: newScheduler(o.MaxChecks), random: o.Random}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Close ends all checks, and returns when none runs any more. What was found
// before remains with the pools.
func (m *Monitor) Close() {
	m.cancel()
	m.following.Wait()
	m.scheduler.close()
}

// Load returns how many active checks run, and how many are due and wait
// because Options.MaxChecks of them run.
func (m *Monitor) Load() (running, overdue int) { return m.scheduler.load() }
