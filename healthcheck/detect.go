package healthcheck

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"sluice/balancer"
	"sluice/observe/panics"
)

// maxSteps is how often the weight of an anomalous peer is halved before the peer is ejected.
const maxSteps = 3

// history is what outlier detection knows of a peer. Checker.mu guards it.
type history struct {
	outcomes  [balancer.NumOutcomes]uint64 // of the peer, at the end of the latest interval
	latencies balancer.Latencies           // the same

	attempts sample             // in the latest interval
	answers  balancer.Latencies // in the latest interval

	evidence [NumCauses]evidence // since the last step, by cause
	steps    int                 // the peer's weight is divided by 2^steps
	why      string              // of the last step down
}

func (h *history) endInterval(p *balancer.Peer) {
	outcomes, latencies := p.Outcomes(), p.Latencies()
	h.attempts, h.answers = sample{}, latencies.Since(h.latencies)
	for class := range outcomes {
		n := float64(outcomes[class] - h.outcomes[class])
		switch class := balancer.OutcomeClass(class); {
		case class.Failure():
			h.attempts = h.attempts.plus(sample{n, n})
		case class == balancer.OutcomeOK:
			h.attempts.all += n
		}
	}
	h.outcomes, h.latencies = outcomes, latencies
}

// anomaly is that a peer is worse than the others.
type anomaly struct {
	peer     *balancer.Peer
	cause    Cause
	why      string
	surprise float64
}

// restartDetectorLocked starts outlier detection at intervals, if it is configured, and gives the
// peers their weights back if it is not.
func (c *Checker) restartDetectorLocked() {
	passive := c.passive.Load()
	if passive == nil || !passive.comparesPeers() {
		c.stopDetectorLocked()
		s := c.pool.Snapshot()
		for _, p := range slices.Concat(s.All, s.Draining) { // draining peers may return
			if h := c.histories[p]; h != nil && h.steps > 0 {
				c.adjustLocked(balancer.Adjustment{Peer: p, By: 1})
			}
		}
		c.histories = nil
		return
	}
	c.endIntervalsLocked(c.pool.Snapshot())
	if c.detector != nil && c.every == passive.Interval {
		return // a reload does not put off the next step
	}
	c.stopDetectorLocked()
	c.every = passive.Interval
	var timer *time.Timer
	timer = time.AfterFunc(c.every, func() {
		defer panics.Contain(panics.Probe, nil)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.detector == timer { // else it was stopped
			timer.Reset(c.every)
			c.detectLocked()
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

// endIntervalsLocked ends the interval of every peer, and forgets the peers that have left the
// pool.
func (c *Checker) endIntervalsLocked(s *balancer.Snapshot) {
	known := make(map[*balancer.Peer]*history, len(s.All)+len(s.Draining))
	for _, p := range slices.Concat(s.All, s.Draining) { // draining peers may return
		known[p] = c.histories[p]
		if known[p] == nil {
			known[p] = new(history)
		}
		known[p].endInterval(p)
	}
	c.histories = known
}

// detectLocked takes half of its weight from each peer that was anomalous in the interval that ends
// now, and ejects it if it has no more to lose. Peers that were not get theirs back in the same
// steps.
func (c *Checker) detectLocked() {
	passive, snapshot := c.passive.Load(), c.pool.Snapshot()
	c.endIntervalsLocked(snapshot)
	var found []anomaly
	for _, rivals := range snapshot.Rivals() {
		found = append(found, c.compareLocked(passive, rivals)...)
	}
	slices.SortStableFunc(found, func(a, b anomaly) int { return cmp.Compare(b.surprise, a.surprise) })
	for _, p := range snapshot.All {
		h, r := c.histories[p], c.records[p]
		switch {
		case h == nil || h.steps == 0 || slices.ContainsFunc(found, func(a anomaly) bool { return a.peer == p }):
		case r != nil && (r.ejected || time.Since(r.returned) < c.every):
			c.stepLocked(p, h, 0)
		default:
			c.stepLocked(p, h, -1)
		}
	}
	for _, a := range found {
		switch h := c.histories[a.peer]; {
		case h.steps == maxSteps:
			c.ejectLocked(a.peer, a.cause, a.why)
			c.stepLocked(a.peer, h, 0)
		case h.steps > 0 || c.roomLocked(passive, c.lightLocked):
			h.why = a.why
			c.stepLocked(a.peer, h, 1)
		}
	}
}

// compareLocked returns the anomalous ones of the peers that share requests.
func (c *Checker) compareLocked(passive *Passive, peers []*balancer.Peer) (found []anomaly) {
	var attempts sample
	var answers balancer.Latencies
	for _, p := range peers {
		attempts, answers = attempts.plus(c.histories[p].attempts), answers.Plus(c.histories[p].answers)
	}
	for _, p := range peers {
		h := c.histories[p]
		note := func(cause Cause, own, others sample, tolerated float64, what string) bool {
			surprise := h.evidence[cause].add(own, others, tolerated)
			if surprise > enough {
				found = append(found, anomaly{p, cause, fmt.Sprintf(what+", %.0f of %.0f at the other peers", own.bad, own.all, others.bad, others.all), surprise})
			}
			return surprise > enough
		}
		if s := passive.SuccessRate; s != nil && note(CauseSuccessRate, h.attempts, attempts.minus(h.attempts), 1-float64(s.Below), "%.0f of %.0f requests failed") {
			continue
		}
		if l := passive.Latency; l != nil {
			rest := answers.Since(h.answers)
			limit := max(time.Duration(l.Factor*float64(rest.Median())), l.Above)
			note(CauseLatency, slower(&h.answers, limit), slower(&rest, limit), slowShare, "%.0f of %.0f answers took more than "+rounded(limit).String())
		}
	}
	return found
}

func slower(l *balancer.Latencies, limit time.Duration) sample {
	return sample{float64(l.Above(limit)), float64(l.Count())}
}

// lightLocked reports whether p is ejected or has lost weight.
func (c *Checker) lightLocked(p *balancer.Peer) bool {
	h := c.histories[p]
	return c.records.ejected(p) || h != nil && h.steps > 0
}

// stepLocked takes a step down, or up if it is negative, or says anew when the next one is due. The
// evidence begins anew.
func (c *Checker) stepLocked(p *balancer.Peer, h *history, step int) {
	h.steps += step
	h.evidence = [NumCauses]evidence{}
	a := balancer.Adjustment{Peer: p, By: 1 / float64(int(1)<<h.steps)}
	if h.steps > 0 && !c.records.ejected(p) {
		a.Why = fmt.Sprintf("%s; 1/%d of its weight for %s until %s", h.why, 1<<h.steps, c.every, time.Now().Add(c.every).UTC().Format(time.RFC3339))
	}
	c.adjustLocked(a)
}

// adjustLocked queues a factor for apply.
func (c *Checker) adjustLocked(a balancer.Adjustment) {
	c.adjustments = append(c.adjustments, a)
	c.wake.Send()
}

// rounded returns d with at most three significant digits.
func rounded(d time.Duration) time.Duration {
	for unit := time.Duration(1); ; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
}
