package healthcheck

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/observe/panics"
)

// fullFor is how long after a refused ejection no other one is considered, so that a
// burst of failures costs little.
const fullFor = time.Second

// record is a peer that is or was ejected. Checker.mu guards it.
type record struct {
	peer     *balancer.Peer
	ejected  bool
	times    int         // ejections, minus one per Interval without an ejection
	returned time.Time   // from the latest ejection
	until    time.Time   // with ejected: when it ends
	why      string      // with ejected
	timer    *time.Timer // of the latest ejection
}

// records are the peers that are or were ejected. Checker.mu guards them.
type records map[*balancer.Peer]*record

func (all records) of(p *balancer.Peer) *record {
	r := all[p]
	if r == nil {
		r = &record{peer: p}
		all[p] = r
	}
	return r
}

// ejected reports whether p is ejected, or its verdict is queued.
func (all records) ejected(p *balancer.Peer) bool {
	r := all[p]
	return r != nil && r.ejected
}

// Ejection is an ejection that lasts, for the checker in another process.
type Ejection struct {
	Key   discovery.Key `json:"key"`
	Times int           `json:"times"` // it is the n-th one
	Until time.Time     `json:"until"`
	Why   string        `json:"why"`
}

// Ejections returns the ejections that last.
func (c *Checker) Ejections() (all []Ejection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, r := range c.records {
		if r.ejected {
			all = append(all, Ejection{p.ID, r.times, r.until, r.why})
		}
	}
	return all
}

// Restore makes the peers of the first set that another process had ejected ejected for the rest of
// the time, as far as there is room. One that gets no requests for another reason takes none. It is
// called before AfterFirstChecks.
func (c *Checker) Restore(all []Ejection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restored = all
}

// ejectRestoredLocked does what Restore says, for the first set. It says itself who has failed on
// probation.
func (c *Checker) ejectRestoredLocked(s *balancer.Snapshot) {
	all, passive := c.restored, c.passive.Load()
	c.restored = nil
	if passive == nil || c.stopped {
		return
	}
	for _, e := range all {
		n := slices.IndexFunc(s.All, func(p *balancer.Peer) bool { return p.ID == e.Key })
		left := min(time.Until(e.Until), max(passive.MaxEjection, passive.Ejection)) // the clock may have been put back
		if n < 0 || left <= 0 || onProbation(s.All[n]) || c.records.ejected(s.All[n]) {
			continue
		}
		if p := s.All[n]; p.State() > balancer.StateWarming || c.mayEjectLocked(p, passive) {
			r := c.records.of(p)
			r.times = e.Times
			c.beginLocked(r, left, e.Why)
		}
	}
}

// failed is Options.OnFailure of the pool.
func (c *Checker) failed(p *balancer.Peer, o balancer.Outcome, s balancer.Streak) {
	passive := c.passive.Load()
	if passive == nil {
		return
	}
	cause, length, ok := passive.exceeded(s)
	if !ok || p.Has(balancer.ReasonEjected) || balancer.Now() < c.fullUntil.Load() && !onProbation(p) { // who is takes no room
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
	c.ejectLocked(p, cause, why)
}

// ejectLocked ejects a peer unless MaxEjected is reached. A peer on probation is always
// ejected, and out of use for good.
func (c *Checker) ejectLocked(p *balancer.Peer, cause Cause, why string) {
	passive := c.passive.Load()
	if passive == nil || !c.mayEjectLocked(p, passive) {
		return
	}
	r := c.records.of(p)
	good := int(time.Since(r.returned) / max(passive.Interval, 1)) // large before the first ejection
	r.times = max(r.times-good, 0) + 1
	c.stats.Ejections[cause]++
	c.beginLocked(r, passive.ejection(r.times), why)
}

// mayEjectLocked reports whether a peer may be ejected, and counts that there is no room for it.
func (c *Checker) mayEjectLocked(p *balancer.Peer, passive *Passive) bool {
	if c.stopped || c.records.ejected(p) || p.State() > balancer.StateWarming {
		return false // stopped, or the peer gets no requests
	}
	if !onProbation(p) && !c.roomLocked(passive, c.records.ejected) {
		c.stats.Refused++
		c.fullUntil.Store(balancer.Now() + int64(fullFor))
		return false
	}
	return true
}

// beginLocked begins an ejection, for d.
func (c *Checker) beginLocked(r *record, d time.Duration, why string) {
	r.ejected, r.until, r.why = true, time.Now().Add(d), why
	var timer *time.Timer
	timer = time.AfterFunc(d, func() {
		defer panics.Contain(panics.Probe, nil)
		c.mu.Lock()
		defer c.mu.Unlock()
		if r.timer == timer && !c.stopped { // else it was of an earlier ejection
			c.readmitLocked(r)
		}
	})
	r.timer = timer
	why = fmt.Sprintf("%s; for %s until %s", why, d.Round(time.Millisecond), r.until.UTC().Format(time.RFC3339))
	if r.times > 1 {
		why += fmt.Sprintf(", %s time", ordinal(r.times))
	}
	c.queueLocked(balancer.ReasonEjected, balancer.Verdict{Peer: r.peer, Down: true, Why: why})
}

// roomLocked reports whether one more peer may be ejected, or lose weight. taken says which are.
func (c *Checker) roomLocked(passive *Passive, taken func(*balancer.Peer) bool) bool {
	peers, ejected := 0, 0 // without other reasons
	for _, p := range c.pool.Snapshot().All {
		if p.Has(^balancer.ReasonEjected) {
			continue
		}
		peers++
		if taken(p) {
			ejected++
		}
	}
	allowed := max(int(float64(passive.MaxEjected)*float64(peers)), 1)
	return ejected+1 <= allowed && ejected+1 < peers
}

// readmitLocked ends an ejection.
func (c *Checker) readmitLocked(r *record) {
	if !r.ejected {
		return
	}
	r.ejected = false
	r.returned = time.Now()
	r.timer.Stop()
	c.fullUntil.Store(math.MinInt64)
	var trial balancer.Streak
	if passive := c.passive.Load(); passive != nil {
		trial = passive.streakAfterEjection()
	}
	r.peer.ResetStreak(trial)
	c.queueLocked(balancer.ReasonEjected, balancer.Verdict{Peer: r.peer})
	if h := c.histories[r.peer]; h != nil && h.steps > 0 {
		c.stepLocked(r.peer, h, 0)
	}
}

func (c *Checker) readmitAllLocked() {
	for _, r := range c.records {
		c.readmitLocked(r)
	}
}

// forgetRecordsLocked removes what is known of peers that left the pool.
func (c *Checker) forgetRecordsLocked(s *balancer.Snapshot) {
	if len(c.records)+len(c.flaps) == 0 {
		return
	}
	known := make(map[*balancer.Peer]bool, len(s.All)+len(s.Draining))
	for _, p := range slices.Concat(s.All, s.Draining) {
		known[p] = true
	}
	for p, r := range c.records {
		if !known[p] {
			r.timer.Stop()
			delete(c.records, p)
		}
	}
	maps.DeleteFunc(c.flaps, func(p *balancer.Peer, _ *flaps) bool { return !known[p] })
}

// ordinal returns "1st", "2nd", ….
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
