package simulation

import (
	"time"

	"sluice/balancer"
)

// peer is the model of a peer. w.mu guards its fields.
type peer struct {
	*transport
	service *service
	actual  *balancer.Peer

	added        time.Time
	left         time.Time // zero: it is in the set
	drainTimeout time.Duration
	closed       bool // its transport is
	gone         bool // drained or cut
	cut          bool
	checks
	checkedEnd bool           // its last counters were checked
	state      balancer.State // by the latest event
	operator   bool           // drains it
	operated   time.Time
	usual      int  // weight when it is well
	unproven   bool // a first check has yet to pass

	probation time.Time // since when the registry has lost it; zero: it has not
	refused   bool      // a connection, since then
	refusedAt time.Time // when it last was
	doubtful  bool      // a check has failed, since then or just before

	inflight int
	ended    [balancer.NumOutcomes]uint64
}

func (p *peer) String() string { return p.service.name + " " + describePeer(p.actual) }

func (s *service) newTransport(actual *balancer.Peer) balancer.Transport {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	p := &peer{service: s, actual: actual, added: time.Now(), operator: s.drains[actual.ID], operated: time.Now()}
	p.transport = &transport{peer: p, closed: make(chan struct{}), suspected: make(chan struct{})}
	s.peers[actual] = p
	return p.transport
}

// leavesNow reports whether there is a reason to remove the peer.
func (p *peer) leavesNow() bool {
	s := p.service
	if !s.closed.IsZero() || s.registry.consul != nil {
		return true
	}
	_, listed := s.latest().set[p.actual.ID]
	return !listed
}

func (s *service) note(e balancer.Event) {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	s.now().moved = true
	if e.Kind == balancer.EventPanic || e.Kind == balancer.EventPanicOver {
		s.now().changed = true
		w.counts[e.Kind.String()]++
		w.logf("%s: %s %s", s.name, e.Kind, e.Detail)
		return
	}
	p := s.peers[e.Peer]
	if weight := e.Peer.Instance().Weight; weight > 0 {
		p.usual = weight
	}
	w.logf("%s: %s (%s) %s", p, e.Kind, e.State, e.Detail)
	p.suspendedLocked()
	if e.Peer.Has(balancer.ReasonActive | balancer.ReasonEjected) {
		p.doubtful = true
	}
	ejection := e.Kind == balancer.EventState && e.State == balancer.StateEjected && p.state <= balancer.StateWarming
	p.state = e.State
	p.observe()
	if ejection {
		w.counts["peer ejected"]++
		s.checkEjection(p)
	} else {
		s.now().changed = true
	}
	if e.State == balancer.StateWarming {
		w.counts["peer warming"]++
	}
	switch e.Kind {
	case balancer.EventAdded:
		if p.gone {
			w.violateLocked("%s: added after it was gone", p)
		}
		if !p.left.IsZero() {
			w.counts["peer returned while draining"]++
		} else if p.operator {
			w.counts["drain stood"]++
		}
		p.added, p.left, p.checks = now, time.Time{}, checks{}
	case balancer.EventRemoved:
		if !p.left.IsZero() {
			w.violateLocked("%s: removed twice", p)
		}
		p.left, p.drainTimeout = now, s.options.DrainTimeout
		s.checkRemoval(p)
	case balancer.EventDrained:
		w.counts["peer drained"]++
		if p.inflight > 0 {
			w.violateLocked("%s: drained with %d in flight", p, p.inflight)
		}
		if p.gone = !p.left.IsZero(); !p.gone && !p.operator && p.operated != now && !p.actual.Has(balancer.ReasonDrain) {
			w.violateLocked("%s: drained without cause", p)
		}
	case balancer.EventCut:
		p.gone, p.cut = true, true
		if p.left.IsZero() || now.Sub(p.left) < p.drainTimeout {
			w.violateLocked("%s: cut before its time", p)
		}
	}
}
