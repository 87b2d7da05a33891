package healthcheck

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/balancer"
)

// Checker judges the peers of one pool. It is safe for concurrent use.
//
// It is made before its pool, whose options it completes (see Adapt), then
// started with it:
//
//	c := monitor.NewChecker()
//	pool, err := balancer.NewPool(name, c.Adapt(options, settings))
//	…
//	c.Start(pool, settings)
//
// and for other settings
//
//	err := pool.Reconfigure(c.Adapt(options, settings))
//	…
//	c.Configure(settings)
//
// in this order, so that nobody waits for a check that never comes.
type Checker struct {
	monitor  *Monitor
	pool     *balancer.Pool // nil before Start
	said     chan struct{}  // capacity 1: there are verdicts
	followed chan struct{}  // closed when follow has returned

	// What failed reads without a lock.

	passive atomic.Pointer[Passive] // nil: nothing is detected
	full    atomic.Int64            // until when no further peer can be ejected, in nanoseconds of Unix time

	checks [2]atomic.Uint64 // that failed, that passed
	tasks  group            // of targets; the scheduler's

	mu       sync.Mutex // guards the fields below
	cancel   context.CancelFunc
	stopped  bool
	active   *Active
	targets  map[*balancer.Peer]*target // peers with active checks
	known    []*balancer.Peer           // of the snapshot that targets are made of
	awaited  map[*balancer.Peer]bool    // peers whose first check is waited for
	first    func()                     // called when there are none any more; nil: nobody waits
	records  map[*balancer.Peer]*record // peers that are or were ejected
	detector *time.Timer                // nil if nothing is detected at intervals
	counts   map[*balancer.Peer]counts  // at the start of the interval
	verdicts []verdict                  // that the pool has not been told yet
	stats    Stats                      // without Checks and Ejected
}

// verdict is a balancer.Verdict and the reason it is about.
type verdict struct {
	balancer.Verdict
	reason balancer.Reason
}

// NewChecker returns a checker that is not used yet: until Start it costs
// nothing and need not be stopped.
func (m *Monitor) NewChecker() *Checker {
	return &Checker{monitor: m, said: make(chan struct{}, 1), followed: make(chan struct{})}
}

// Start begins to judge the peers of pool. It must be called once, and Stop
// later, or the monitor be closed.
func (c *Checker) Start(pool *balancer.Pool, s Settings) {
	ctx, cancel := context.WithCancel(c.monitor.ctx)
	c.mu.Lock()
	c.pool = pool
	c.cancel = cancel
	c.targets = make(map[*balancer.Peer]*target)
	c.records = make(map[*balancer.Peer]*record)
	c.mu.Unlock()
	c.Configure(s)
	c.monitor.following.Go(func() {
		defer close(c.followed)
		c.follow(ctx)
	})
}

// Configure changes the settings. What is known of the peers stays; checks that
// run at the moment do not count if the probe is another one. Reasons that
// nobody looks after any more are taken back: without active checks no peer is
// unhealthy, without outlier detection none is ejected.
func (c *Checker) Configure(s Settings) {
	c.mu.Lock()
	if c.stopped {
		c.mu.Unlock()
		return
	}
	old := c.active
	c.active = s.Active
	if old == nil || s.Active == nil || old.Port != s.Active.Port {
		c.dropTargets()
	}
	c.full.Store(0)
	c.passive.Store(nil)
	if s.Passive.enabled() {
		c.passive.Store(&s.Passive)
	} else {
		c.readmitAll()
	}
	c.restartDetector()
	for _, p := range c.known { // in this order, whatever that of a map is
		c.monitor.scheduler.schedule(&c.targets[p].task, time.Duration(c.monitor.random()*float64(s.Active.interval(true, c.monitor.random()))))
	}
	c.mu.Unlock()
	c.poke()
	if old != nil && (s.Active == nil || old.Probe != s.Active.Probe) {
		old.Probe.Close()
	}
}

// AfterFirstChecks calls f, once, as soon as every peer that the pool has now has
// been checked, for better or worse, or has left: at once if peers need not pass
// a check before they get requests. It may be called once, after Start. f must
// not block.
func (c *Checker) AfterFirstChecks(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first = f
	c.awaited = make(map[*balancer.Peer]bool)
	for _, p := range c.pool.Snapshot().All {
		c.awaited[p] = true
	}
	c.endWait()
}

// endWait calls first if there is nothing to wait for any more. mu must be
// held.
func (c *Checker) endWait() {
	mustPass := c.active != nil && (c.active.MustPassFirst || c.active.OverridesConsul)
	if c.first != nil && (len(c.awaited) == 0 || c.stopped || !mustPass) {
		c.first()
		c.first, c.awaited = nil, nil
	}
}

// Stop ends all checks of the pool and returns when nothing judges its peers
// any more. The reasons that speak against them stay.
func (c *Checker) Stop() {
	c.mu.Lock()
	c.stopped = true
	c.endWait()
	c.passive.Store(nil)
	c.dropTargets()
	for _, r := range c.records {
		r.stop()
	}
	c.stopDetector()
	active := c.active
	c.mu.Unlock()
	c.cancel()
	<-c.followed
	if active != nil {
		active.Probe.Close()
	}
}

// follow keeps up with the peers of the pool, and tells it the verdicts, until
// ctx ends.
func (c *Checker) follow(ctx context.Context) {
	for {
		changed := c.pool.Changed()
		c.sync()
		c.tell()
		select {
		case <-changed:
		case <-c.said:
		case <-ctx.Done():
			return
		}
	}
}

// sync compares the peers of the pool with those that are checked, and what
// speaks against them with what should.
func (c *Checker) sync() {
	s := c.pool.Snapshot()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	if c.active != nil && !slices.Equal(s.All, c.known) {
		c.syncTargets(s.All)
	}
	for _, p := range s.All {
		if c.active == nil && p.Has(balancer.ReasonActive) {
			c.say(balancer.ReasonActive, p, false, "")
		}
		if t := c.targets[p]; t != nil && onProbation(p) && t.stand() {
			c.conclude(t)
		}
		if p.Has(balancer.ReasonEjected) && !c.ejected(p) {
			c.say(balancer.ReasonEjected, p, false, "")
		}
	}
	c.forgetRecords(s)
	if len(s.Eligible) == 0 {
		c.readmitAll() // a doubtful peer is better than none
	}
}

// say notes a verdict for the pool. mu must be held.
func (c *Checker) say(r balancer.Reason, p *balancer.Peer, down bool, why string) {
	c.verdicts = append(c.verdicts, verdict{balancer.Verdict{Peer: p, Down: down, Why: why}, r})
	c.poke()
}

func (c *Checker) poke() {
	select {
	case c.said <- struct{}{}:
	default:
	}
}

// tell makes the pool hear of the verdicts, in order. Those that have come up
// meanwhile are told together, since for each time the pool makes a new
// snapshot of all its peers.
func (c *Checker) tell() {
	c.mu.Lock()
	said := c.verdicts
	c.verdicts = nil
	c.mu.Unlock()
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
	if len(c.verdicts) == 0 {
		c.endWait()
	}
}

// Stats is what a checker has counted since it was made.
type Stats struct {
	ChecksPassed, ChecksFailed uint64            // active checks, by result
	Ejections                  [NumCauses]uint64 // by Cause
	// Refused counts outliers that were not ejected, since too many were or
	// nobody would have been left.
	Refused uint64
	Ejected int // peers that are ejected now
}

// Stats returns what was counted.
func (c *Checker) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.ChecksFailed, s.ChecksPassed = c.checks[0].Load(), c.checks[1].Load()
	for _, r := range c.records {
		if r.ejected {
			s.Ejected++
		}
	}
	return s
}
