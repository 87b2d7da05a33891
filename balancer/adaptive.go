package balancer

import (
	"math"
	"slices"
	"sync/atomic"
)

// Criticality says which requests are refused first while a service is overloaded; see
// [Limits].Adaptive.
type Criticality uint8

const (
	// CriticalityNormal is between the other two.
	CriticalityNormal Criticality = iota
	// CriticalityCritical is refused last.
	CriticalityCritical
	// CriticalitySheddable is refused first, as are retries of any criticality.
	CriticalitySheddable

	// NumCriticalities is the number of criticalities; they count from 0.
	NumCriticalities = int(CriticalitySheddable) + 1
)

var criticalityNames = [NumCriticalities]string{"normal", "critical", "sheddable"}

func (c Criticality) String() string { return criticalityNames[c] }

// quarters are the part of a limit that requests of a criticality may fill.
var quarters = [NumCriticalities]int64{CriticalityCritical: 4, CriticalityNormal: 3, CriticalitySheddable: 2}

// adaptive bounds the attempts in each tier of a pool. A request that finds no room in its tier
// goes to the next one, and is refused where no tier has room. It does not wait: all that waits is
// at the peers.
type adaptive struct {
	floor atomic.Int64 // the lowest limit
	tiers [maxLimiters]limiter
	shed  [NumCriticalities]atomic.Uint64 // requests that no tier had room for
	of    [maxLimiters]tierID             // which tier has a limiter, or had it last; Pool.mu guards it
}

// maxLimiters is how many tiers have a limit of their own. All further ones share the last.
const maxLimiters = 8

// tierID identifies a tier. Its place among the tiers does not: those of priorities come and go.
type tierID struct {
	tier     int // from 1; 0: none
	priority int
}

// A limiter bounds the attempts that wait for an answer. One whose answer has begun does not count,
// however long that is: neither a stream nor a client that reads slowly is work that others wait
// for. No method takes a lock or allocates.
type limiter struct {
	limit atomic.Int64 // 0 before the first window
	due   atomic.Int64 // when to look at the window, by nanotime; 0 before the first, math.MaxInt64 while a goroutine does
	held  atomic.Bool  // the limit has stopped an attempt in this window
	_     [128 - 24]byte

	waiting atomic.Int64
	_       [128 - 8]byte

	answers latencyCounters // of all windows

	// Only the goroutine that has taken due uses the fields below.
	before   Latencies // answers of the windows before
	opened   int64     // the window, by nanotime
	gradient gradient
}

// hasRoom reports whether enter would count an attempt.
func (l *limiter) hasRoom(c Criticality) bool {
	limit := l.limit.Load()
	return limit == 0 || 4*(l.waiting.Load()+1) <= limit*quarters[c]
}

// enter counts an attempt at the time now; false if there is no room for its criticality.
func (l *limiter) enter(c Criticality, now int64) bool {
	limit := l.limit.Load()
	if n := l.waiting.Add(1); limit == 0 || 4*n <= limit*quarters[c] {
		return true
	}
	l.waiting.Add(-1)
	l.refuse(now)
	return false
}

// refuse notes that the limit has stopped an attempt.
func (l *limiter) refuse(now int64) {
	if !l.held.Load() {
		l.held.Store(true)
	}
	if due := l.due.Load(); now-due >= int64(standstill) && due != 0 && l.due.CompareAndSwap(due, math.MaxInt64) {
		// No answer has come since. What waits is not quick work, such as long polls, and would
		// keep all others out.
		l.gradient, l.opened = gradient{}, 0
		l.limit.Store(unlimited)
		l.due.Store(now)
	}
}

// enter counts an attempt on a peer, and returns the number of its limiter, from 1; 0 if its tier
// has no room.
func (a *adaptive) enter(p *Peer, c Criticality, now int64) uint8 {
	if tier := p.tier.Load(); a.tiers[tier].enter(c, now) {
		return uint8(tier) + 1
	}
	return 0
}

// leave undoes enter, once the attempt has an answer or will have none.
func (a *adaptive) leave(number uint8, o Outcome, end int64) {
	l := &a.tiers[number-1]
	l.waiting.Add(-1)
	switch o.Class {
	case OutcomeOK, OutcomeTimeout, OutcomeSuperseded, OutcomeClientGone: // the last three have waited at least so long
		if o.Latency <= 0 {
			return
		}
	default:
		return // how long a failure takes says nothing about load
	}
	l.answers[latencyBucket(o.Latency)].Add(1)
	if due := l.due.Load(); (due == 0 || end >= due) && l.due.CompareAndSwap(due, math.MaxInt64) {
		l.due.Store(l.observe(end, int(a.floor.Load())))
	}
}

// observe sets the limit if the window has enough answers, and returns when to look again.
func (l *limiter) observe(now int64, floor int) (due int64) {
	answers := l.answers.load()
	if length := now - l.opened; length > int64(longestWindow) { // there was hardly a request, or Limits.Adaptive was off
		l.gradient.interrupt(length)
		l.limit.Store(unlimited)
		l.opened = 0
	}
	if l.opened != 0 {
		window := answers.Since(l.before)
		if window.Count() < windowSamples {
			return now + int64(windowTime)/4
		}
		l.limit.Store(l.gradient.observe(&window, now-l.opened, now, l.held.Swap(false), floor))
	}
	l.before, l.opened = answers, now
	return now + int64(windowTime)
}

// Sheds reports whether Pick would refuse a first attempt at present with [ErrOverload], and counts
// that as a refusal if so: for those who would rather know before they read the body of a request.
func (p *Pool) Sheds(q *Query) bool {
	s := p.snapshot.Load()
	a := s.terms.adaptive
	if a == nil || a.hasRoom(s.part(q.Group), q.Criticality) || q.Fallback != 0 && a.hasRoom(s.part(q.Fallback), q.Criticality) {
		return false
	}
	now := nanotime()
	for _, peers := range s.part(q.Group).inTiers {
		if len(peers) > 0 {
			a.tiers[peers[0].tier.Load()].refuse(now)
		}
	}
	_ = p.Admission.shed(q.Criticality, false)
	return true
}

// hasRoom reports whether a part has a tier with room, or no peer that gets requests: then that is
// why a pick fails.
func (a *adaptive) hasRoom(part *Part, c Criticality) bool {
	for _, peers := range part.inTiers {
		if len(peers) > 0 && a.tiers[peers[0].tier.Load()].hasRoom(c) {
			return true
		}
	}
	return len(part.Eligible) == 0
}

// shed counts a request that no tier has room for, unless it is one again, and returns its error.
func (a *Admission) shed(c Criticality, again bool) error {
	if !again {
		a.adaptive.Load().shed[c].Add(1)
	}
	return a.refuse(LimitAdaptive, again)
}

// assign tells the peers of a snapshot which limiters they have: tiers are those of the whole pool,
// in each group. A tier has the limiter that it had before, whatever tiers have come or gone. a may
// be nil.
func (a *adaptive) assign(s *Snapshot, selectors []Selector) {
	if a == nil {
		return
	}
	tiers := byTier(s.All, nil, selectors)
	ids, present := make([]tierID, len(tiers)), make(map[tierID]bool, len(tiers))
	for i, tier := range tiers {
		if len(tier.all) > 0 {
			instance := tier.all[0].condition.Load().instance
			ids[i] = tierID{1 + tierOf(&instance, selectors), instance.Priority}
			present[ids[i]] = true
		}
	}
	s.limiters = make([]*limiter, len(tiers))
	for i, tier := range tiers {
		if len(tier.all) == 0 {
			continue
		}
		n := a.limiterOf(ids[i], present)
		s.limiters[i] = &a.tiers[n]
		for _, peer := range tier.all {
			peer.tier.Store(int32(n))
		}
	}
}

// limiterOf returns the number of the limiter of a tier: the one that it had, or else one that no
// tier has had, or that of a tier that is not present any more.
func (a *adaptive) limiterOf(id tierID, present map[tierID]bool) int {
	n := slices.Index(a.of[:], id)
	if n < 0 {
		n = slices.Index(a.of[:], tierID{})
	}
	if n < 0 {
		n = slices.IndexFunc(a.of[:], func(other tierID) bool { return !present[other] })
	}
	if n < 0 {
		return maxLimiters - 1
	}
	a.of[n] = id
	return n
}

// fullTiers are the tiers in which a request has found no room, a bit each.
type fullTiers uint8

func (f *fullTiers) add(p *Peer) { *f |= 1 << p.tier.Load() }

func (f fullTiers) has(p *Peer) bool { return f != 0 && f>>p.tier.Load()&1 != 0 }

// Overload is the state of Limits.Adaptive.
type Overload struct {
	Tiers []TierLoad               // as Snapshot.Tiers, up to the number of limits
	Shed  [NumCriticalities]uint64 // requests that were refused since the start
}

// TierLoad is what waits in a tier.
type TierLoad struct {
	Waiting int `json:"waiting"` // attempts without an answer
	Limit   int `json:"limit"`   // of them; 0: none at present
}

// Overload returns the state of Limits.Adaptive; nil if it is off.
func (s *Snapshot) Overload() *Overload {
	a := s.terms.adaptive
	if a == nil {
		return nil
	}
	o := new(Overload)
	for i := range min(len(s.Tiers), maxLimiters) {
		var load TierLoad
		if i < len(s.limiters) && s.limiters[i] != nil {
			load.Waiting = int(s.limiters[i].waiting.Load())
			if limit := s.limiters[i].limit.Load(); limit < unlimited {
				load.Limit = int(limit)
			}
		}
		o.Tiers = append(o.Tiers, load)
	}
	for i := range o.Shed {
		o.Shed[i] = a.shed[i].Load()
	}
	return o
}
