package healthcheck

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/balancer"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// Checker runs the checks of one pool. It is safe for concurrent use.
//
// It completes the options of its pool, then starts with it:
//
//	c := monitor.NewChecker()
//	pool := balancer.NewPool(name, c.Adapt(options, settings))
//	c.Start(pool, settings)
//
// For new settings it changes both:
//
//	c.Reconfigure(c.Adapt(options, settings), settings)
type Checker struct {
	monitor  *Monitor
	pool     *balancer.Pool // nil before Start
	wake     wake.One       // there are verdicts
	followed chan struct{}  // closed when follow has returned

	passive   atomic.Pointer[Passive] // nil: no outlier detection
	fullUntil atomic.Int64            // no ejection but on probation before this time, by balancer.Now: the clock may be set back

	tasks group // of targets, in the scheduler

	mu       sync.Mutex // guards the fields below
	cancel   context.CancelFunc
	stopped  bool
	active   *Active
	targets  map[*balancer.Peer]*target // peers with active checks
	known    []*balancer.Peer           // of the snapshot that targets were made of
	awaited  map[*balancer.Peer]bool    // peers whose first check is pending
	first    func()                     // called when awaited is empty; nil: not set
	records  records
	flaps    recoveries
	restored []Ejection // see Restore; nil: none, or there is a set
	verdicts []verdict  // queued for the pool
	stats    Stats

	detector    *time.Timer                 // nil without detection at intervals
	every       time.Duration               // its interval
	histories   map[*balancer.Peer]*history // nil without detection at intervals
	adjustments []balancer.Adjustment       // queued for the pool
}

// verdict is a balancer.Verdict with its reason.
type verdict struct {
	balancer.Verdict
	reason balancer.Reason
}

// NewChecker returns a checker. Before Start it uses no resources and needs no Stop.
func (m *Monitor) NewChecker() *Checker {
	return &Checker{monitor: m, wake: wake.NewOne(), followed: make(chan struct{})}
}

// Start begins to check the peers of pool. It must be called once, and Stop later, or
// the monitor be closed.
func (c *Checker) Start(pool *balancer.Pool, s Settings) {
	ctx, cancel := context.WithCancel(c.monitor.scheduler.ctx)
	c.start(pool, cancel, s)
	c.monitor.scheduler.ended.Go(func() {
		defer close(c.followed)
		panics.Repeat(ctx.Done(), panics.Probe, time.Second, func() { c.follow(ctx) })
	})
}

func (c *Checker) start(pool *balancer.Pool, cancel context.CancelFunc, s Settings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pool = pool
	c.cancel = cancel
	c.targets = make(map[*balancer.Peer]*target)
	c.records, c.flaps = make(records), make(recoveries)
	c.changeLocked(s)
}

// Reconfigure changes the options of the pool and the settings. The state of peers stays; results
// of running checks do not count if the probe changed. Without active checks or outlier detection
// their reasons are cleared.
func (c *Checker) Reconfigure(o balancer.Options, s Settings) {
	old := c.change(o, s)
	c.wake.Send()
	if old != nil && (s.Active == nil || old.Probe != s.Active.Probe) {
		old.Probe.Close()
	}
}

// change changes options and settings, and returns the active checks of before; nil if c is
// stopped. Nobody compares the peers with the settings meanwhile: a peer that awaits its first
// check by the options would not await it by the settings of before.
func (c *Checker) change(o balancer.Options, s Settings) (old *Active) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pool.Reconfigure(o); c.stopped {
		return nil
	}
	old = c.active
	c.changeLocked(s)
	return old
}

func (c *Checker) changeLocked(s Settings) {
	old := c.active
	c.active = s.Active
	if old == nil || s.Active == nil || old.Port != s.Active.Port || s.Active.OverridesRegistry && !old.OverridesRegistry {
		c.dropTargetsLocked() // for new ones, of which the first check decides
	}
	c.fullUntil.Store(math.MinInt64)
	c.passive.Store(nil)
	if s.Passive.enabled() {
		c.passive.Store(&s.Passive)
	} else {
		c.readmitAllLocked()
	}
	c.restartDetectorLocked()
	if s.Active != nil && s.Active.Foreign {
		c.monitor.scheduler.setKind(&c.tasks, foreign)
	} else {
		c.monitor.scheduler.setKind(&c.tasks, own)
	}
	for _, p := range c.known { // in a repeatable order
		if t := c.targets[p]; !t.checked {
			t.down = p.Has(balancer.ReasonActive) // no more if it need not pass a check first any more
		}
		c.monitor.scheduler.schedule(&c.targets[p].task, time.Duration(c.monitor.random()*float64(s.Active.interval(true, c.monitor.random()))))
	}
}

// AfterFirstChecks calls f once, when every present peer of the pool has been checked
// or has left; at once if peers need no check before they get requests, and none is ejected as
// Restore says. It may be called once, after Start. f must not block.
func (c *Checker) AfterFirstChecks(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first = f
	c.awaited = make(map[*balancer.Peer]bool)
	for _, p := range c.pool.Snapshot().All {
		c.awaited[p] = true
	}
	c.endWaitLocked()
}

// endWaitLocked calls first if no first check is pending, and the pool has all verdicts. Who is
// ejected as Restore says is decided just before: before its first check no peer gets requests, so
// there would be no room.
func (c *Checker) endWaitLocked() {
	mustPass := c.active != nil && (c.active.MustPassFirst || c.active.OverridesRegistry)
	if c.first == nil || !c.stopped && (len(c.verdicts) > 0 || mustPass && len(c.awaited) > 0) {
		return
	}
	c.ejectRestoredLocked(c.pool.Snapshot())
	if len(c.verdicts) == 0 || c.stopped { // else apply ends the wait
		c.first()
		c.first, c.awaited = nil, nil
	}
}

// Stop ends the checks of the pool and waits for the running ones. Reasons of peers stay.
func (c *Checker) Stop() {
	active := c.end()
	c.cancel()
	<-c.followed
	if active != nil {
		active.Probe.Close()
	}
}

// end makes results count no longer, and returns the active checks.
func (c *Checker) end() *Active {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	c.endWaitLocked()
	c.passive.Store(nil)
	c.dropTargetsLocked()
	for _, r := range c.records {
		r.timer.Stop()
	}
	c.stopDetectorLocked()
	return c.active
}

// follow reconciles the checks with the pool's peers, and applies verdicts, until ctx
// ends.
func (c *Checker) follow(ctx context.Context) {
	for {
		changed := c.pool.Changed()
		c.sync()
		c.apply()
		select {
		case <-changed:
		case <-c.wake:
		case <-ctx.Done():
			return
		}
	}
}

// sync reconciles targets and reasons with the pool's peers.
func (c *Checker) sync() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	s := c.pool.Snapshot() // not older than what AfterFirstChecks has seen
	if c.active != nil && !slices.Equal(s.All, c.known) {
		c.syncTargetsLocked(s.All)
	}
	for p := range c.awaited {
		if c.targets[p] == nil { // it has left, perhaps before a target was made of it
			delete(c.awaited, p)
		}
	}
	for _, p := range s.All {
		if c.active == nil && p.Has(balancer.ReasonActive) {
			c.queueLocked(balancer.ReasonActive, balancer.Verdict{Peer: p})
		}
		if t := c.targets[p]; t != nil {
			if t.follow(c.active); onProbation(p) && t.startProbation() {
				c.concludeLocked(t)
			}
		}
		if p.Has(balancer.ReasonEjected) && !c.records.ejected(p) {
			c.queueLocked(balancer.ReasonEjected, balancer.Verdict{Peer: p})
		}
	}
	c.dampLocked(s)
	c.forgetRecordsLocked(s)
	if len(s.Eligible) == 0 {
		c.readmitAllLocked() // an ejected peer is better than none
	}
}

// queueLocked queues a verdict for apply.
func (c *Checker) queueLocked(r balancer.Reason, v balancer.Verdict) {
	c.verdicts = append(c.verdicts, verdict{v, r})
	c.wake.Send()
}

// apply passes queued verdicts to the pool in order, those with the same reason
// together: each call makes a snapshot of all peers.
func (c *Checker) apply() {
	c.mu.Lock()
	said := c.verdicts
	adjustments := c.adjustments
	c.verdicts, c.adjustments = nil, nil
	c.mu.Unlock()
	c.pool.SetFactors(adjustments...)
	var batch []balancer.Verdict
	for i, v := range said {
		batch = append(batch, v.Verdict)
		if i == len(said)-1 || said[i+1].reason != v.reason {
			c.pool.SetReasons(v.reason, batch...)
			batch = batch[:0]
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endWaitLocked()
}

// Stats are the counters of a checker.
type Stats struct {
	ChecksPassed, ChecksFailed uint64            // active checks, by result
	Ejections                  [NumCauses]uint64 // by Cause
	// Refused counts outliers that were not ejected because of MaxEjected, or
	// because no peer would have been left.
	Refused uint64
}

func (c *Checker) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}
