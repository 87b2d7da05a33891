package healthcheck

import (
	"context"
	"fmt"
	"time"

	"sluice/balancer"
)

// target is a peer with active checks. The checker's mu guards its fields,
// except for those that never change.
type target struct {
	task
	peer    *balancer.Peer
	address string
	judgement
	fault string // of the latest check that failed
	why   string // what the pool was told last
	told  bool   // the pool was told something
	gone  bool
}

// syncTargets makes targets of peers, and of no others.
func (c *Checker) syncTargets(peers []*balancer.Peer) {
	c.known = peers
	present := make(map[*balancer.Peer]bool, len(peers))
	for _, p := range peers {
		present[p] = true
		if c.targets[p] == nil {
			t := &target{peer: p, address: c.active.address(p), judgement: judgement{down: p.Has(balancer.ReasonActive)}}
			t.task = *newTask(&c.tasks, func(ctx context.Context) time.Duration { return c.check(ctx, t) })
			c.targets[p] = t
			c.monitor.scheduler.schedule(&t.task, 0)
		}
	}
	for p, t := range c.targets {
		if !present[p] {
			c.dropTarget(t)
		}
	}
	for p := range c.awaited {
		if !present[p] {
			delete(c.awaited, p)
		}
	}
}

func (c *Checker) dropTargets() {
	for _, t := range c.targets {
		c.dropTarget(t)
	}
	c.known = nil
}

func (c *Checker) dropTarget(t *target) {
	t.gone = true
	delete(c.targets, t.peer)
	delete(c.awaited, t.peer)
	if runs := c.monitor.scheduler.remove(&t.task); !runs && c.active != nil {
		c.active.Probe.Forget(t.address)
	}
}

// check asks a peer once, and returns after how long it is to be asked again.
func (c *Checker) check(ctx context.Context, t *target) time.Duration {
	c.mu.Lock()
	active, first := c.active, !t.checked
	c.mu.Unlock()
	// Drawn in the order in which checks begin: that in which they end is left to
	// chance where several time out.
	spread, offset := c.monitor.random(), c.monitor.random()
	if active == nil {
		return 0 // and gone
	}
	limited, cancel := context.WithTimeout(ctx, active.Timeout)
	err := active.Probe.Check(limited, Target{t.address, t.peer.Control})
	cancel()
	if ctx.Err() != nil {
		return active.Interval // nobody will wait for it
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case t.gone || c.stopped:
		active.Probe.Forget(t.address)
		return 0
	case c.active != active:
		return 0 // asked in a way that does not count any more
	}
	c.count(err == nil)
	t.take(err == nil, onProbation(t.peer), active)
	if err != nil {
		t.fault = fmt.Sprintf("%s: %v", active.Probe, err)
	}
	c.conclude(t)
	if delete(c.awaited, t.peer); c.first != nil && len(c.awaited) == 0 {
		c.poke()
	}
	next := active.interval(t.settled(), spread)
	if first && t.settled() {
		// Peers that came together are not checked together for ever.
		next = time.Duration(offset * float64(next))
	}
	return next
}

func (c *Checker) count(passed bool) {
	if passed {
		c.checks[1].Add(1)
	} else {
		c.checks[0].Add(1)
	}
}

// conclude tells the pool if it has another idea of t, or of what is wrong, or
// does not know yet that a check has passed.
func (c *Checker) conclude(t *target) {
	why := ""
	if t.down {
		why = t.fault
	}
	if t.down != t.peer.Has(balancer.ReasonActive) || why != t.why || !t.told && !t.down && !t.failing {
		t.why, t.told = why, true
		c.say(balancer.ReasonActive, t.peer, t.down, why)
	}
}

// onProbation reports whether the registry has lost a peer: its first failure ends
// its use.
func onProbation(p *balancer.Peer) bool { return !p.Instance().Probation.IsZero() }
