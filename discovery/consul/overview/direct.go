package overview

import "time"

// A service that has just changed is likely to change again: it is being deployed, or a check
// flaps. The overview shows a change when it has read the list of a node, which for thousands of
// services may take seconds. So the services that changed last are direct: their queries block.

const (
	// directFor is how long after its last change a service may be direct.
	directFor = 30 * time.Second

	// DirectWait is how long the query of a direct subscriber may block. Then a service
	// that has changed later gets its place. It is not canceled before, because Consul may
	// continue a canceled query.
	DirectWait = 10 * time.Second
)

// Direct reports whether the next query for the service may block, in place of Wait.
func (s *Subscriber) Direct() bool {
	s.overview.mu.Lock()
	defer s.overview.mu.Unlock()
	return s.direct
}

// Answered records an answer for the service of s: the nodes of its instances, sorted,
// their services, and when they last changed. A change of one of the nodes changes the service.
// So does one of a service that leads to it in the mesh, such as a terminating gateway.
func (s *Subscriber) Answered(nodes, services []string, changed time.Time) {
	v := s.overview
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, by := range services {
		v.recordProxyLocked(by, s.service)
	}
	s.nodes, s.changed = nodes, changed
	v.endDirectLocked(s)
	if time.Since(changed) < directFor {
		v.waiting[s] = true
	}
	v.grantDirectLocked(s)
}

// endDirectLocked makes s not direct, and not waiting for it.
func (v *overview) endDirectLocked(s *Subscriber) {
	if s.direct {
		s.direct = false
		v.direct--
	}
	delete(v.waiting, s)
}

// grantDirectLocked makes waiting subscribers direct while there is room: those that
// changed last. All but asking, which queries anyway, are notified.
func (v *overview) grantDirectLocked(asking *Subscriber) {
	room := min(v.limit()/8, v.placesLocked()-min(len(v.nodes), v.slotsLocked()))
	for v.direct < room {
		var last *Subscriber
		for s := range v.waiting {
			if time.Since(s.changed) >= directFor {
				delete(v.waiting, s)
			} else if last == nil || s.changed.After(last.changed) {
				last = s
			}
		}
		if last == nil {
			return
		}
		delete(v.waiting, last)
		last.direct = true
		v.direct++
		if last != asking {
			last.news.Send()
		}
	}
}
