package healthcheck

import (
	"fmt"
	"time"

	"sluice/balancer"
)

// fullFor is how long after an outlier that could not be ejected no other one
// is considered: under a storm of failures the question costs time, and the
// answer does not change quickly.
const fullFor = time.Second

// record is what is known of a peer that is or was ejected. The checker's mu
// guards it.
type record struct {
	peer     *balancer.Peer
	ejected  bool
	times    int       // ejections so far, less those that were taken back for good conduct
	returned time.Time // from the latest ejection
	timer    *time.Timer
}

func (r *record) stop() {
	if r.timer != nil {
		r.timer.Stop()
	}
}

// failed hears of each failure of a peer; it is Options.OnFailure of the pool.
// Most of the time it returns after a few comparisons.
func (c *Checker) failed(p *balancer.Peer, o balancer.Outcome, s balancer.Streak) {
	passive := c.passive.Load()
	if passive == nil {
		return
	}
	cause, length, ok := passive.exceeded(s)
	if !ok || p.Has(balancer.ReasonEjected) || time.Now().UnixNano() < c.full.Load() {
		return
	}
	what := o.Class.String()
	if o.Class == balancer.OutcomeServerError && o.Status != 0 {
		what = fmt.Sprintf("status %d", o.Status)
	}
	why := fmt.Sprintf("%d failures in a row, the last: %s", length, what)
	if length == 1 {
		why = what
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.eject(p, cause, why)
}

// eject takes a peer out for a while, if it may. One on probation always may: it
// is out for good then.
func (c *Checker) eject(p *balancer.Peer, cause Cause, why string) {
	passive := c.passive.Load()
	if passive == nil || c.stopped || c.ejected(p) || p.State() > balancer.StateWarming {
		return // too late, or it gets no requests anyway
	}
	if !onProbation(p) && !c.room(passive) {
		c.stats.Refused++
		c.full.Store(time.Now().Add(fullFor).UnixNano())
		return
	}
	r := c.records[p]
	if r == nil {
		r = &record{peer: p}
		c.records[p] = r
	}
	good := int(time.Since(r.returned) / max(passive.Interval, 1)) // large before the first ejection
	r.times = max(r.times-good, 0) + 1
	d := passive.ejection(r.times)
	r.ejected = true
	r.timer = time.AfterFunc(d, func() { c.ejectionEnds(r) })
	c.stats.Ejections[cause]++
	why = fmt.Sprintf("%s; for %s until %s", why, d, time.Now().Add(d).UTC().Format(time.RFC3339))
	if r.times > 1 {
		why += fmt.Sprintf(", %s time", ordinal(r.times))
	}
	c.say(balancer.ReasonEjected, p, true, why)
}

// ejected reports whether p is, or is about to be, ejected.
func (c *Checker) ejected(p *balancer.Peer) bool {
	r := c.records[p]
	return r != nil && r.ejected
}

// room reports whether one more peer may be ejected.
func (c *Checker) room(passive *Passive) bool {
	peers, ejected := 0, 0 // of those that nothing else speaks against
	for _, p := range c.pool.Snapshot().All {
		if p.Has(^balancer.ReasonEjected) {
			continue
		}
		peers++
		if c.ejected(p) {
			ejected++
		}
	}
	allowed := max(int(passive.MaxEjected*float64(peers)), 1)
	return ejected+1 <= allowed && ejected+1 < peers
}

// ejectionEnds is what r's timer calls.
func (c *Checker) ejectionEnds(r *record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	c.readmit(r)
}

// readmit ends an ejection.
func (c *Checker) readmit(r *record) {
	if !r.ejected {
		return
	}
	r.ejected = false
	r.returned = time.Now()
	r.timer.Stop()
	c.full.Store(0)
	var trial balancer.Streak
	if passive := c.passive.Load(); passive != nil {
		trial = passive.trial()
	}
	r.peer.ResetStreak(trial)
	c.say(balancer.ReasonEjected, r.peer, false, "")
}

// readmitAll ends the ejection of all peers.
func (c *Checker) readmitAll() {
	for _, r := range c.records {
		c.readmit(r)
	}
}

// forgetRecords drops the records of peers that the pool does not know any
// more.
func (c *Checker) forgetRecords(s *balancer.Snapshot) {
	if len(c.records) == 0 {
		return
	}
	known := make(map[*balancer.Peer]bool, len(s.All)+len(s.Draining))
	for _, peers := range [][]*balancer.Peer{s.All, s.Draining} {
		for _, p := range peers {
			known[p] = true
		}
	}
	for p, r := range c.records {
		if !known[p] {
			r.stop()
			delete(c.records, p)
		}
	}
}

// ordinal returns "1st", "2nd" and so on.
func ordinal(n int) string {
	suffix := "th"
	if n/10%10 != 1 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return fmt.Sprintf("%d%s", n, suffix)
}
