package simulation

import (
	"maps"
	"slices"
	"time"
)

func (w *world) endFaults() {
	w.log("end of faults")
	w.mu.Lock()
	for _, address := range slices.Sorted(maps.Keys(w.upstreams)) {
		w.upstreams[address].become(upstreamFine)
	}
	w.mu.Unlock()
	for _, r := range w.registries {
		r.heal()
	}
	for _, s := range w.services {
		for _, d := range s.drainsAway() {
			s.drain(d, false)
		}
		for _, p := range s.pool.Snapshot().All {
			s.drain(p.ID, false)
		}
	}
	limit := settleTime
	for _, c := range w.consuls {
		limit = max(limit, consulSettleTime+max(c.probation, 0))
	}
	if w.catalog != nil {
		limit = max(limit, hungRecovery+w.catalog.probation)
	}
	w.mu.Lock()
	limit += w.maxWait
	w.mu.Unlock()
	w.pass(limit)
	for _, s := range w.services {
		s.checkConverged()
	}
	w.pass(restTime)
	for _, s := range w.services {
		s.checkAllServe()
		s.checkReplicas()
	}
	for range 30 {
		for _, s := range w.services {
			w.request(s, true)
		}
		w.pass(w.upTo(3 * time.Millisecond))
	}
	w.pass(time.Second)
	w.loseAll()
	if w.catalog != nil {
		w.catalog.loseSight()
	}
	for _, r := range w.registries {
		r.clear()
	}
	w.pass(limit + maxDrainTimeout)
	for _, s := range w.services {
		s.checkConverged()
	}
}

const (
	// settleTime is how long after the last fault a scripted registry has
	// reported what it knows.
	settleTime = maxReportDelay + maxReportRetry
	// consulSettleTime is the same for the source of package consul, beside the time
	// of a probation: the wait between attempts.
	consulSettleTime = 50 * time.Second
	// restTime is how long after everything works every peer is used: the end of
	// the longest ejection, and checks that pass.
	restTime = maxEjection + 20*time.Second
)
