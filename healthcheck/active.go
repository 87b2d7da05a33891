package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/discovery"
	"sluice/observe/excerpt"
)

// target is a peer with active checks. Checker.mu guards its changing fields.
type target struct {
	task
	peer    *balancer.Peer
	address string
	checkState
	fault    string // of the latest failed check
	why      string // last reported to the pool
	reported bool   // a verdict was reported to the pool
	other    bool   // somebody else has answered the latest check
}

// syncTargetsLocked makes targets of peers, and removes all others.
func (c *Checker) syncTargetsLocked(peers []*balancer.Peer) {
	present := make(map[*balancer.Peer]bool, len(peers))
	for _, p := range peers {
		present[p] = true
		if c.targets[p] == nil {
			t := &target{peer: p, address: c.active.address(p), checkState: checkState{down: p.Has(balancer.ReasonActive)}}
			t.task = *newTask(&c.tasks, func(ctx context.Context) time.Duration { return c.check(ctx, t) })
			c.targets[p] = t
			c.monitor.scheduler.schedule(&t.task, 0)
		}
	}
	for p, t := range c.targets {
		if !present[p] {
			c.dropTargetLocked(t)
		}
	}
	c.known = peers
}

func (c *Checker) dropTargetsLocked() {
	for _, t := range c.targets {
		c.dropTargetLocked(t)
	}
	c.known = nil
}

func (c *Checker) dropTargetLocked(t *target) {
	delete(c.targets, t.peer)
	if runs := c.monitor.scheduler.remove(&t.task); !runs && c.active != nil {
		c.active.Probe.Forget(t.address)
	}
}

// follow takes another address for the checks of its peer, if the registration has another port for
// them now.
func (t *target) follow(a *Active) {
	if address := a.address(t.peer); address != t.address {
		a.Probe.Forget(t.address)
		t.address = address
	}
}

// check runs one check of a peer and returns the time until the next.
func (c *Checker) check(ctx context.Context, t *target) time.Duration {
	c.mu.Lock()
	active, first, address := c.active, !t.checked, t.address
	c.mu.Unlock()
	// Drawn when checks begin: the order in which they end is not repeatable.
	spread, offset := c.monitor.random(), c.monitor.random()
	if active == nil {
		return 0 // t is gone too
	}
	limited, cancel := context.WithTimeout(ctx, active.Timeout)
	instance := t.peer.Instance()
	c.monitor.scheduler.waits(&t.task)
	err := active.Probe.Check(limited, Target{Address: address, Instance: instance, Control: t.peer.Control})
	cancel()
	if ctx.Err() != nil {
		return active.Interval // the monitor is closed
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.targets[t.peer] != t: // it is gone, or c is stopped
		active.Probe.Forget(t.address)
		return 0
	case c.active != active:
		return 0 // a result of the previous configuration
	}
	if err == nil {
		c.stats.ChecksPassed++
	} else {
		c.stats.ChecksFailed++
	}
	passed := err == nil || active.saysNothing(err, instance)
	_, t.other = errors.AsType[*otherService](err)
	t.take(passed, onProbation(t.peer), active)
	if !passed {
		t.fault = excerpt.Of(fmt.Sprintf("%s: %v", active.Probe, err), maxFault)
	}
	c.concludeLocked(t)
	if delete(c.awaited, t.peer); c.first != nil && len(c.awaited) == 0 {
		c.wake.Send()
	}
	next := active.interval(t.passing(), spread)
	if first && t.passing() {
		// Spread the checks of peers that joined together.
		next = time.Duration(offset * float64(next))
	}
	return next
}

// maxFault bounds the text of a failed check in bytes: a peer may have chosen it, such as the names
// in its certificate.
const maxFault = 400

// saysNothing reports whether a check failed for a reason that is not the instance's: the mesh does
// not let sluice connect to it, or sluice has no certificate to connect to anybody. Such a check
// counts as passed.
func (a *Active) saysNothing(err error, i discovery.Instance) bool {
	return a.Denied != nil && a.Denied(i) || errors.As(err, new(certificates.LackError))
}

// concludeLocked queues a verdict if the pool's view of t differs.
func (c *Checker) concludeLocked(t *target) {
	why := ""
	if t.down {
		why = t.fault
	}
	if t.down != t.peer.Has(balancer.ReasonActive) || why != t.why || !t.reported && !t.down && !t.failing {
		t.why, t.reported = why, true
		c.queueLocked(balancer.ReasonActive, balancer.Verdict{Peer: t.peer, Down: t.down, Why: why, Other: t.other})
	}
}

// onProbation reports whether the registry has lost the peer, which one failure then
// takes out of use.
func onProbation(p *balancer.Peer) bool { return !p.Instance().Probation.IsZero() }
