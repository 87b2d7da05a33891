package healthcheck

import (
	"slices"
	"time"

	"sluice/balancer"
	"sluice/observe/panics"
)

// counts are the counters of a peer at one time.
type counts struct {
	outcomes  [balancer.NumOutcomes]uint64
	latencies balancer.Latencies
}

// attempts returns the attempts after before that ended in success or failure.
func (c *counts) attempts(before *counts) attempts {
	var a attempts
	for class := range c.outcomes {
		n := c.outcomes[class] - before.outcomes[class]
		switch class := balancer.OutcomeClass(class); {
		case class == balancer.OutcomeOK:
			a.ok += n
		case class.Failure():
			a.failed += n
		}
	}
	return a
}

// restartDetectorLocked starts outlier detection at intervals, if it is configured.
func (c *Checker) restartDetectorLocked() {
	c.stopDetectorLocked()
	passive := c.passive.Load()
	if passive == nil || !passive.detects() {
		return
	}
	c.takeCountsLocked()
	var timer *time.Timer
	timer = time.AfterFunc(passive.Interval, func() {
		defer panics.Contain(panics.Probe, nil)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.detector == timer { // else it was stopped
			timer.Reset(passive.Interval)
			c.detectLocked(passive)
		}
	})
	c.detector = timer
}

func (c *Checker) stopDetectorLocked() {
	if c.detector != nil {
		c.detector.Stop()
		c.detector = nil
	}
}

// takeCountsLocked starts an interval.
func (c *Checker) takeCountsLocked() {
	s := c.pool.Snapshot()
	c.counts = make(map[*balancer.Peer]counts, len(s.All)+len(s.Draining))
	for _, p := range slices.Concat(s.All, s.Draining) { // draining peers may return
		c.counts[p] = counts{p.Outcomes(), p.Latencies()}
	}
}

// detectLocked ejects the outliers of the interval that ends now, among the peers that
// get requests.
func (c *Checker) detectLocked(passive *Passive) {
	before := c.counts
	c.takeCountsLocked()
	var peers []*balancer.Peer
	var tried []attempts
	var answered []answers
	for _, p := range c.pool.Snapshot().All {
		now, counted := c.counts[p]
		if !counted || p.State() > balancer.StateWarming || c.ejectedLocked(p) {
			continue
		}
		start := before[p] // zero for a new peer
		latencies := now.latencies.Since(start.latencies)
		peers = append(peers, p)
		tried = append(tried, now.attempts(&start))
		answered = append(answered, answers{latencies.Count(), latencies.Median()})
	}
	if passive.SuccessRate != nil {
		for _, o := range passive.SuccessRate.outliers(tried) {
			c.ejectLocked(peers[o.index], CauseSuccessRate, o.why)
		}
	}
	if passive.Latency != nil {
		for _, o := range passive.Latency.outliers(answered) {
			c.ejectLocked(peers[o.index], CauseLatency, o.why)
		}
	}
}
