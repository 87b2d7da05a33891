package simulation

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"sluice/balancer"
	"sluice/config/units"
	"sluice/discovery"
	"sluice/healthcheck"
	"sluice/route"
	"sluice/test/balancertest"
)

const (
	maxDrainTimeout = 5 * time.Second
	maxEjection     = 10 * time.Second
	responseTimeout = 2 * time.Second
)

// service is a service in use, as in package gateway, with a model.
type service struct {
	w        *world
	name     string
	registry *registry
	pool     *balancer.Pool
	checker  *healthcheck.Checker
	random   *lockedRand // the pool's

	// w.mu guards the fields below.

	options   balancer.Options
	settings  healthcheck.Settings
	routed    *route.Service
	began     time.Time
	sourced   time.Time // when its source last began
	closed    time.Time // zero: in use
	reports   []report  // of the scripted source, where they differ from the one before
	offered   bool      // the manager has read the saved set
	peers     map[*balancer.Peer]*peer
	drains    map[discovery.Key]bool // by the operator
	instant   *instant               // the latest at which something happened
	configure time.Time              // when settings last changed
	waiting   int                    // requests that wait for a peer, the first or another
	firsts    int                    // first tries
	retries   int                    // further ones
	retrying  int                    // those in flight
	chosen    []choice               // by tier, at chosenAt
	chosenAt  time.Time
}

// report is a report of a source as peers.
type report struct {
	at  time.Time
	set map[discovery.Key]discovery.Instance
}

func (w *world) newService(r *registry) *service {
	w.mu.Lock()
	w.numbers.pools++
	number := w.numbers.pools
	w.mu.Unlock()
	s := &service{
		w: w, name: r.name, registry: r, began: time.Now(), sourced: time.Now(), configure: time.Now(),
		random: locked(stream(w.seed, streamPool, number)),
		peers:  make(map[*balancer.Peer]*peer),
		drains: make(map[discovery.Key]bool),
	}
	s.options = balancertest.Complete(balancer.Options{
		RetryBudget:  drawBudget(w.random),
		Limits:       drawLimits(w.random),
		NewTransport: s.newTransport,
		Notify:       s.note,
		Random:       s.random.Uint64,
	})
	s.draw()
	s.checker = w.monitor.NewChecker()
	s.pool = balancer.NewPool(s.name, s.checker.Adapt(s.options, s.settings))
	s.route()
	s.checker.Start(s.pool, s.settings)
	w.mu.Lock()
	w.byName[s.name] = s
	w.logf("%s: in use, %s", s.name, s.describe())
	w.mu.Unlock()
	w.manager.Watch(s.name, r.source(s))
	return s
}

// draw chooses the settings that a reload may change.
func (s *service) draw() {
	random := s.w.random
	s.options.Policy = pick(random, balancer.Policies()...)
	if s.options.Policy == balancer.PolicyHash && random.IntN(8) > 0 {
		s.options.Policy = balancer.PolicyEWMA // its tables take long to make
	}
	s.drawTiers(random)
	s.drawSubset(random)
	s.drawGroups(random)
	s.options.DrainTimeout = upTo(random, maxDrainTimeout)
	s.options.NewWitness = s.w.proof.Witness
	s.options.SlowStart, s.options.PanicThreshold = balancer.SlowStart{Aggression: 1, MinWeight: .1}, 0
	if random.IntN(4) == 0 {
		s.options.SlowStart.Window = upTo(random, 3*time.Second)
	}
	if random.IntN(3) == 0 {
		s.options.PanicThreshold = random.Float64()
	}
	s.settings = healthcheck.Settings{}
	if random.IntN(2) == 0 {
		s.settings.Active = s.drawActive(random)
	}
	if random.IntN(4) > 0 {
		s.settings.Passive = drawPassive(random)
	}
}

// route returns the route of requests.
func (s *service) route() {
	random := s.w.random
	routed := &route.Service{
		Name:     s.name,
		Pool:     s.pool,
		Timeouts: route.Timeouts{ResponseHeader: responseTimeout},
		Retry:    route.Retry{Attempts: 1 + random.IntN(4)},
	}
	if random.IntN(3) == 0 {
		routed.Retry.PerTryTimeout = 10*time.Millisecond + upTo(random, responseTimeout/2)
	}
	if random.IntN(2) == 0 {
		routed.WaitForPeer = upTo(random, 500*time.Millisecond)
	}
	s.w.mu.Lock()
	s.routed = routed
	s.w.mu.Unlock()
}

func (s *service) drawActive(random *rand.Rand) *healthcheck.Active {
	a := &healthcheck.Active{
		Probe: &probe{s},
		Schedule: healthcheck.Schedule{
			Interval:           500*time.Millisecond + upTo(random, 2*time.Second),
			FailingInterval:    200*time.Millisecond + upTo(random, 2*time.Second),
			Timeout:            50*time.Millisecond + upTo(random, 500*time.Millisecond),
			UnhealthyThreshold: 1 + random.IntN(3),
			HealthyThreshold:   1 + random.IntN(3),
			MustPassFirst:      random.IntN(3) == 0,
			OverridesRegistry:  random.IntN(5) == 0,
		},
	}
	if random.IntN(2) == 0 {
		a.Jitter = units.Ratio(random.Float64() / 2)
	}
	return a
}

func drawPassive(random *rand.Rand) healthcheck.Passive {
	p := healthcheck.Passive{
		ConsecutiveConnectFailures: random.IntN(4),
		ConsecutiveFailures:        random.IntN(5),
		Consecutive5xx:             random.IntN(5),
		Interval:                   500*time.Millisecond + upTo(random, 2*time.Second),
		Ejection:                   200*time.Millisecond + upTo(random, time.Second),
		MaxEjected:                 pick(random, units.Ratio(0.1), 0.3, 0.5, 1),
	}
	p.MaxEjection = p.Ejection + upTo(random, maxEjection-2*time.Second)
	if random.IntN(3) == 0 {
		p.SuccessRate = &healthcheck.SuccessRate{Below: 1}
	}
	if random.IntN(3) == 0 {
		p.Latency = &healthcheck.Latency{Factor: 2, Above: time.Millisecond}
	}
	return p
}

func drawBudget(random *rand.Rand) *balancer.RetryBudget {
	if random.IntN(3) == 0 {
		return &balancer.RetryBudget{Ratio: units.Ratio(random.Float64() / 2), MinPerSecond: random.IntN(2)}
	}
	return &balancer.RetryBudget{Ratio: 0.2, MinPerSecond: 10}
}

func drawLimits(random *rand.Rand) balancer.Limits {
	var l balancer.Limits
	for _, limit := range []*int{&l.Requests, &l.PeerRequests, &l.Pending, &l.Retries} {
		if random.IntN(8) == 0 {
			*limit = 1 + random.IntN(6)
		}
	}
	return l
}

func (s *service) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy %s, drain timeout %v, slow start %v, panic %.2f, limits %+v, budget %+v", s.options.Policy, s.options.DrainTimeout, s.options.SlowStart.Window, s.options.PanicThreshold, s.options.Limits, s.budget())
	if len(s.options.Tiers) > 0 {
		fmt.Fprintf(&b, ", tiers %+v × %v", s.options.Tiers, s.options.Overprovisioning)
	}
	if s.options.Subset.Size > 0 {
		fmt.Fprintf(&b, ", subset %+v", s.options.Subset)
	}
	if a := s.settings.Active; a != nil {
		fmt.Fprintf(&b, ", checks every %v (failing %v, timeout %v, thresholds %d/%d, must pass first: %v, overrides: %v)",
			a.Interval, a.FailingInterval, a.Timeout, a.UnhealthyThreshold, a.HealthyThreshold, a.MustPassFirst, a.OverridesRegistry)
	}
	if p := s.settings.Passive; p.MaxEjected > 0 {
		fmt.Fprintf(&b, ", ejects after %d/%d/%d for %v to %v, at most %v, success rate: %v, latency: %v", p.ConsecutiveConnectFailures,
			p.ConsecutiveFailures, p.Consecutive5xx, p.Ejection, p.MaxEjection, p.MaxEjected, p.SuccessRate != nil, p.Latency != nil)
	}
	r := s.routed.Retry
	fmt.Fprintf(&b, ", %d attempts of %v, wait %v", r.Attempts, r.PerTryTimeout, s.routed.WaitForPeer)
	return b.String()
}

func (s *service) budget() balancer.RetryBudget { return *s.options.RetryBudget }

// reload changes the settings as a reload of the configuration does.
func (s *service) reload() {
	time.Sleep(time.Nanosecond) // checks that begin at the same time are of the new settings
	s.w.mu.Lock()
	s.configure, s.now().configured = time.Now(), true
	before := s.settings.Active
	s.draw()
	s.w.mu.Unlock()
	s.route()
	s.w.mu.Lock()
	s.recheck(before)
	s.w.logf("%s: reload, %s", s.name, s.describe())
	options := s.checker.Adapt(s.options, s.settings)
	s.w.mu.Unlock()
	s.checker.Reconfigure(options, s.settings)
}

func (w *world) retire(s *service) {
	w.log("%s: out of use", s.name)
	w.manager.Unwatch(s.name)
	s.checker.Stop()
	w.mu.Lock()
	s.closed = time.Now()
	if w.byName[s.name] == s {
		delete(w.byName, s.name)
	}
	w.mu.Unlock()
	s.pool.Close()
	w.retired = append(w.retired, s)
}

// drain drains a peer. The drain outlasts the removal of the instance.
func (s *service) drain(id discovery.Key, on bool) {
	s.w.mu.Lock()
	orders := maps.Clone(s.drains)
	s.w.mu.Unlock()
	orders[id] = on
	s.pool.SetOrders(func(i discovery.Instance) balancer.Orders {
		return balancer.Orders{Drain: orders[i.Key()], Why: "operator"}
	})
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.drains[id] = on
	s.w.counts["operator drained"]++
	for _, p := range s.peers {
		if p.actual.ID == id && !p.gone && p.operator != on {
			p.operator, p.operated = on, time.Now()
			s.w.logf("%s: operator drains it: %v", p, on)
		}
	}
}

// drainsAway returns the drained instances that are absent, sorted.
func (s *service) drainsAway() (away []discovery.Key) {
	s.w.mu.Lock()
	for id, on := range s.drains {
		if on {
			away = append(away, id)
		}
	}
	s.w.mu.Unlock()
	present := s.pool.Snapshot().All
	away = slices.DeleteFunc(away, func(id discovery.Key) bool {
		return slices.ContainsFunc(present, func(p *balancer.Peer) bool { return p.ID == id })
	})
	slices.SortFunc(away, func(a, b discovery.Key) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Machine, b.Machine))
	})
	return away
}

func (s *service) reportedLocked(entries []discovery.Instance) {
	set := processes(entries)
	if n := len(s.reports); n > 0 && maps.EqualFunc(s.reports[n-1].set, set, discovery.Instance.Equal) {
		return
	}
	s.reports = append(s.reports, report{time.Now(), set})
}

func (s *service) latest() report {
	if len(s.reports) == 0 {
		return report{}
	}
	return s.reports[len(s.reports)-1]
}
