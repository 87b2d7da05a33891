package healthcheck

import "math/rand/v2"

// Options are the settings of a [Monitor].
type Options struct {
	// MaxChecks, at least 1, bounds the active checks that run at a time, over all pools. If
	// several pools have checks, one may use at most half of what the others leave, and those
	// whose checks are Active.Foreign at most half together. A check that waits for its peer counts
	// only while awaitPerWorker times as many wait already.
	MaxChecks int
	// Random returns numbers in [0, 1) for jitter and is safe for concurrent use.
	// Default: rand.Float64 of math/rand/v2; simulations set a seeded one.
	Random func() float64
}

type Monitor struct {
	scheduler *scheduler
	random    func() float64 // Options.Random
}

// NewMonitor starts a monitor. It must be closed.
func NewMonitor(o Options) *Monitor {
	if o.Random == nil {
		o.Random = rand.Float64
	}
	return &Monitor{scheduler: newScheduler(o.MaxChecks), random: o.Random}
}

// Close ends all checks and waits for the running ones. Reasons of peers stay.
func (m *Monitor) Close() { m.scheduler.close() }

// Load returns the number of active checks that run, and that are overdue because
// Options.MaxChecks run.
func (m *Monitor) Load() (running, overdue int) { return m.scheduler.load() }
