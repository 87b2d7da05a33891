package healthcheck

import (
	"time"

	"sluice/balancer"
)

// counts is what a pool had counted for a peer at one time.
type counts struct {
	outcomes  [balancer.NumOutcomes]uint64
	latencies balancer.Latencies
}

func countsOf(p *balancer.Peer) counts {
	return counts{p.Outcomes(), p.Latencies()}
}

// attempts returns the attempts since before that say something about the
// peer.
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

// restartDetector begins to look for outliers at intervals, if any are asked
// for. mu must be held, as for the functions below.
func (c *Checker) restartDetector() {
	c.stopDetector()
	passive := c.passive.Load()
	if passive == nil || !passive.detects() {
		return
	}
	c.takeCounts()
	var timer *time.Timer
	timer = time.AfterFunc(passive.Interval, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.detector == timer { // else it was stopped just before
			c.detect(passive)
			timer.Reset(passive.Interval)
		}
	})
	c.detector = timer
}

func (c *Checker) stopDetector() {
	if c.detector != nil {
		c.detector.Stop()
		c.detector = nil
	}
}

// takeCounts begins an interval.
func (c *Checker) takeCounts() {
	s := c.pool.Snapshot()
	c.counts = make(map[*balancer.Peer]counts, len(s.All)+len(s.Draining))
	for _, peers := range [][]*balancer.Peer{s.All, s.Draining} { // the latter may return
		for _, p := range peers {
			c.counts[p] = countsOf(p)
		}
	}
}

// detect ejects the outliers of the interval that ends now. Peers that get no
// requests at its end are not compared.
func (c *Checker) detect(passive *Passive) {
	before := c.counts
	c.takeCounts()
	var peers []*balancer.Peer
	var tried []attempts
	var answered []answers
	for _, p := range c.pool.Snapshot().All {
		now, counted := c.counts[p]
		if !counted || p.State() > balancer.StateWarming || c.ejected(p) {
			continue
		}
		start := before[p] // a peer that was not there had counted nothing
		latencies := now.latencies.Since(start.latencies)
		peers = append(peers, p)
		tried = append(tried, now.attempts(&start))
		answered = append(answered, answers{latencies.Count(), latencies.Median()})
	}
	if passive.SuccessRate != nil {
		for _, o := range passive.SuccessRate.outliers(tried) {
			c.eject(peers[o.index], CauseSuccessRate, o.why)
		}
	}
	if passive.Latency != nil {
		for _, o := range passive.Latency.outliers(answered) {
			c.eject(peers[o.index], CauseLatency, o.why)
		}
	}
}
