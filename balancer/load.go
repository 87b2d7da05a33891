package balancer

import (
	"cmp"
	"math"
	"time"

	"sluice/balancer/load"
	"sluice/observe/panics"
)

// Reported load: answers tell the utilization of their peer ([Peer.ReportLoad]), and once a second load.Steer turns the reports
// into factors of the weights. The timer runs only while peers report.

const (
	// loadBlackout is how long a peer must report before its reports count: the first may be of a time before it had
	// requests (blackout_period of Envoy and gRFC A58).
	loadBlackout = 10 * time.Second
	// loadFresh is the age up to which a report is compared with others.
	loadFresh = 10 * time.Second
	// loadExpiry is the age at which a report no longer counts, and its peer gets the share of its weight again
	// (weight_expiration_period).
	loadExpiry = 3 * time.Minute
	// loadStep is the least relative change of a factor for which a snapshot is built.
	loadStep = 0.01
)

// steering is what a pool keeps of a peer between two steps. Pool.mu guards it.
type steering struct {
	since int64   // first report without a gap of loadExpiry, by nanotime; 0: none
	taken uint64  // the report at the last step, as in Peer.reported
	exact float64 // the factor, of which the one in use may lag by loadStep; 0 is 1
}

// A report has the utilization in its upper half, as a float32, and its time in the lower one.
const reportTick = 1 << 24 // nanoseconds

// ReportLoad stores the utilization that a peer has just reported, above 0: 1 is what it can do without harm. It is one
// atomic store, but for the first report after minutes. Without Options.ReportedLoad it does nothing.
func (p *Peer) ReportLoad(utilization float64) {
	if !(utilization > 0) || math.IsInf(utilization, 1) || !p.pool.takesLoad.Load() {
		return
	}
	p.reported.Store(uint64(math.Float32bits(float32(utilization)))<<32 | uint64(uint32(nanotime()/reportTick)))
	if pool := p.pool; !pool.steers.Load() && pool.steers.CompareAndSwap(false, true) {
		pool.steerLater()
	}
}

// ReportedLoad returns the utilization that the peer has reported last, and how long ago; 0 if it has not, or no longer.
func (p *Peer) ReportedLoad() (utilization float64, age time.Duration) {
	utilization, age = unpackLoad(p.reported.Load(), nanotime())
	if age >= loadExpiry {
		return 0, 0
	}
	return utilization, age
}

func unpackLoad(report uint64, now int64) (utilization float64, age time.Duration) {
	ticks := uint32(now/reportTick) - uint32(report) // also if the clock has gone round
	return float64(math.Float32frombits(uint32(report >> 32))), time.Duration(ticks) * reportTick
}

func (p *Pool) steerLater() {
	time.AfterFunc(load.Period, func() {
		defer panics.Contain(panics.Task, nil)
		if p.steer() {
			p.steerLater()
			return
		}
		p.steers.Store(false) // the next report begins again
	})
}

// steer makes a step, and reports whether another one is due.
func (p *Pool) steer() (again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !p.options.ReportedLoad {
		return false
	}
	now := nanotime()
	snapshot := p.snapshot.Load()
	compared := make(map[*Peer]bool, len(snapshot.All))
	var changed []Adjustment
	for _, part := range snapshot.parts() {
		for _, tier := range part.inTiers {
			steered := make([]*load.Peer, len(tier))
			for i, peer := range tier {
				compared[peer] = true
				steered[i] = peer.steerable(now)
			}
			load.Steer(steered)
			for i, peer := range tier {
				peer.steering.exact = steered[i].Factor
			}
		}
	}
	for _, peer := range snapshot.All {
		s, condition := &peer.steering, peer.condition.Load()
		_, age := unpackLoad(peer.reported.Load(), now)
		switch expired := peer.reported.Load() == 0 || age >= loadExpiry; {
		case expired:
			*s = steering{exact: 1}
			peer.reported.Store(0)
		default:
			again = true
			if !compared[peer] { // when it gets requests again, reports of before do not count
				s.since = 0
			}
		}
		if s.exact == 0 || condition.orders.Weight != 0 { // an order is meant as it is
			s.exact = 1
		}
		if inUse := condition.factors[FactorLoad].factor(); math.Abs(s.exact/inUse-1) > loadStep || s.exact == 1 && inUse != 1 {
			changed = append(changed, Adjustment{Peer: peer, By: s.exact, Why: "reported load"})
		}
	}
	p.setFactorsLocked(FactorLoad, changed)
	return again
}

// steerable returns the peer as load.Steer sees it.
func (p *Peer) steerable(now int64) *load.Peer {
	s, c := &p.steering, p.condition.Load()
	s.exact = cmp.Or(s.exact, 1)
	l := &load.Peer{Weight: float64(c.weight()), Factor: s.exact, Held: c.orders.Weight != 0 || !c.warmFrom.IsZero() || c.factors[FactorHealth].factor() < 1}
	report := p.reported.Load()
	utilization, age := unpackLoad(report, now)
	if report == 0 || age >= loadExpiry {
		return l
	}
	s.since = cmp.Or(s.since, now)
	l.Reported = report != s.taken
	s.taken = report
	if now-s.since >= int64(loadBlackout) && age < loadFresh {
		l.Utilization = utilization
	}
	return l
}

// forgetLoadsLocked ends the effect of all reports.
func (p *Pool) forgetLoadsLocked() {
	var all []Adjustment
	for _, peer := range p.peers {
		peer.forgetLoad()
		if by, _ := peer.Factor(FactorLoad); by != 1 {
			all = append(all, Adjustment{Peer: peer, By: 1})
		}
	}
	p.setFactorsLocked(FactorLoad, all)
}

func (p *Peer) forgetLoad() {
	p.reported.Store(0)
	p.steering = steering{}
}
