package healthcheck

import (
	"fmt"
	"slices"
	"time"

	"sluice/balancer"
)

// flapWindow is the time in which a peer that has recovered Passive.Flaps times is ejected.
const flapWindow = 5 * time.Minute

// flaps are the recoveries of a peer: its checks have failed, and pass again. Checker.mu guards
// them.
type flaps struct {
	counted int         // by the pool, as of the last look
	times   []time.Time // of those in flapWindow, in order
}

// recoveries are the peers that have recovered. Checker.mu guards them.
type recoveries map[*balancer.Peer]*flaps

// recent returns how many recoveries are in flapWindow.
func (f *flaps) recent() int {
	for len(f.times) > 0 && time.Since(f.times[0]) >= flapWindow {
		f.times = f.times[1:]
	}
	return len(f.times)
}

// dampLocked ejects the peers of s that have recovered too often. The more often, the longer: a
// peer that fails and works in turn costs each time the requests that find out.
func (c *Checker) dampLocked(s *balancer.Snapshot) {
	var recovered []*balancer.Peer // since the last look
	for _, p := range s.All {
		n, f := s.Recovered(p), c.flaps[p]
		if n == 0 || f != nil && n == f.counted {
			continue
		}
		if f == nil {
			f = new(flaps)
			c.flaps[p] = f
		}
		for ; f.counted < n; f.counted++ {
			f.times = append(f.times, time.Now())
		}
		recovered = append(recovered, p)
	}
	passive := c.passive.Load()
	if passive == nil || passive.Flaps == 0 {
		return
	}
	for _, p := range recovered {
		n := c.flaps[p].recent()
		if n < passive.Flaps || onProbation(p) || c.flaps.alike(s.All, p, n) || !c.mayEjectLocked(p, passive) {
			continue
		}
		r := c.records.of(p)
		r.times = n - passive.Flaps + 1
		c.stats.Ejections[CauseFlaps]++
		c.beginLocked(r, passive.ejection(r.times), fmt.Sprintf("its checks have failed and passed %d times in %s", n, flapWindow))
	}
}

// alike reports whether at least half of the other peers of a set have recovered half as often as
// p, which has n times: then the cause is one that they share, and to wait helps nobody.
func (all recoveries) alike(set []*balancer.Peer, p *balancer.Peer, n int) bool {
	others := 0
	for other, f := range all {
		if other != p && 2*f.recent() >= n && slices.Contains(set, other) {
			others++
		}
	}
	return others > 0 && 2*others >= len(set)-1
}
