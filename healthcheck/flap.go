package healthcheck

import (
	"fmt"
	"time"

	"sluice/balancer"
)

// flapWindow is the time in which a peer that has recovered Passive.Flaps times is ejected.
const flapWindow = 5 * time.Minute

// flaps are the recoveries of a peer: its checks have failed, and pass again. Checker.mu guards them.
type flaps struct {
	counted int         // by the pool, as of the last look
	times   []time.Time // of those in flapWindow, in order
}

// dampLocked ejects the peers of s that have recovered too often. The more often, the longer: a peer
// that fails and works in turn costs each time the requests that find out.
func (c *Checker) dampLocked(s *balancer.Snapshot) {
	known := make(map[*balancer.Peer]*flaps, len(s.All))
	passive := c.passive.Load()
	for _, p := range s.All {
		n, f := s.Recovered(p), c.flaps[p]
		if f == nil {
			f = &flaps{counted: n}
		}
		known[p] = f
		if n == f.counted {
			continue
		}
		now := time.Now()
		for len(f.times) > 0 && now.Sub(f.times[0]) >= flapWindow {
			f.times = f.times[1:]
		}
		for ; f.counted < n; f.counted++ {
			f.times = append(f.times, now)
		}
		if passive == nil || passive.Flaps == 0 || len(f.times) < passive.Flaps || onProbation(p) || !c.mayEjectLocked(p, passive) {
			continue
		}
		r := c.records.of(p)
		r.times = len(f.times) - passive.Flaps + 1
		c.stats.Ejections[CauseFlaps]++
		c.beginLocked(r, passive.ejection(r.times), fmt.Sprintf("its checks have failed and passed %d times in %s", len(f.times), flapWindow))
	}
	c.flaps = known
}
