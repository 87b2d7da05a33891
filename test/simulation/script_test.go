package simulation

import (
	"slices"
	"time"
)

func (w *world) act() {
	s := w.services[w.random.IntN(len(w.services))]
	switch n := w.random.IntN(1000); {
	case n < 550:
		for range 1 + w.random.IntN(3) {
			w.request(s, false)
		}
	case n < 600:
		w.burst(s)
	case n < 760:
		w.anyRegistry().change()
	case n < 800:
		w.anyRegistry().disturb()
	case n < 900:
		w.afflict()
	case n < 930:
		if away := s.drainsAway(); len(away) > 0 && w.random.IntN(4) == 0 {
			s.drain(away[w.random.IntN(len(away))], false)
		} else if all := s.pool.Snapshot().All; len(all) > 0 {
			s.drain(all[w.random.IntN(len(all))].ID, w.random.IntN(2) == 0)
		}
	case n < 965:
		s.reload()
	case n < 975:
		d := w.drawDebounce()
		w.log("debounce: %v, %v at most", d.Quiet, d.MaxWait)
		w.manager.SetDebounce(d)
	case n < 980 && w.catalog != nil:
		w.catalog.follow(w.catalog.drawSelection(), w.catalog.drawProbation())
	case n < 987:
		w.log("%s: another source", s.name)
		w.mu.Lock()
		s.sourced = time.Now()
		w.mu.Unlock()
		w.manager.Watch(s.name, s.registry.source(s))
	default:
		// The service is renamed, say, and named again: another pool for the same
		// instances, while the first one drains.
		w.count("service replaced")
		w.retire(s)
		w.services[slices.Index(w.services, s)] = w.newService(s.registry)
	}
}

// anyRegistry returns the registry of a service in use, or of one that may be found.
func (w *world) anyRegistry() *registry { return w.registries[w.random.IntN(len(w.registries))] }

// burst sends more simultaneous requests than some limits and budgets allow.
func (w *world) burst(s *service) {
	for range 5 + w.random.IntN(15) {
		w.request(s, false)
		if w.random.IntN(2) == 0 {
			w.pass(w.upTo(time.Millisecond))
		}
	}
}

// afflict changes the behaviour of one or several upstreams.
func (w *world) afflict() {
	n := 1
	if w.random.IntN(6) == 0 {
		n = 4
	}
	var all []*upstream
	for _, r := range w.registries {
		for _, i := range r.entries {
			all = append(all, w.upstreams[i.HostPort()])
		}
	}
	if len(all) == 0 {
		return
	}
	for range n {
		kind := upstreamFine
		if w.random.IntN(3) > 0 {
			kind = upstreamKind(w.random.IntN(numUpstreamKinds))
		}
		w.mu.Lock()
		all[w.random.IntN(len(all))].become(kind)
		w.mu.Unlock()
	}
}
