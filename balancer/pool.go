package balancer

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/discovery"
	"sluice/observe/metrics"
)

// Pool is the peers of one service and the choice among them. It is safe for concurrent
// use.
type Pool struct {
	Name     string            // of the service; it never changes
	Requests *metrics.Requests // the counters of the requests to the service

	snapshot  current
	onFailure atomic.Pointer[func(*Peer, Outcome, Streak)]
	random    source
	queue     queue // of requests waiting for a connection

	// Maintenance is the order for who sends requests to the pool; nil: there is none. The pool
	// itself heeds it for copies only.
	Maintenance atomic.Pointer[Maintenance]
	_           [128 - 16 - 8 - 8 - 8 - 8 - 24 - 8]byte

	// cursor is the position of round robin, on a cache line of its own. It starts at
	// random, so that replicas do not use the peers in step.
	cursor atomic.Uint64
	_      [128 - 8]byte

	Admission Admission

	typical typicalLatencies
	alike   alike
	_       [128 - 8]byte

	copyCursor atomic.Uint64 // as cursor, for copies: requests of clients keep their turns

	mayConnect   func(discovery.Instance, netip.AddrPort) error
	mayUseSocket func(path string) error

	known atomic.Bool // Apply was called

	// mu guards the fields below and some of Peer.
	mu       sync.Mutex
	options  Options
	set      []discovery.Instance
	peers    map[discovery.Key]*Peer // in the set
	groups   groups
	draining map[discovery.Key]*Peer // left the set, not retired yet
	orders   func(discovery.Instance) Orders
	notices  notices
	closed   bool
	retired  *time.Timer   // ends the time in which a closed pool still gives its peers
	drained  chan struct{} // closed when the pool is closed and nothing drains
	witness  Witness       // nil: none has been asked for

	lately  lately // for shares
	numbers uint8  // the last Peer.number that was given
	warming warming
}

// NewPool returns an empty pool for the service name.
func NewPool(name string, o Options) *Pool {
	p := &Pool{
		Name:     name,
		Requests: metrics.NewRequests(),
		random:   o.Random,

		mayConnect:   o.MayConnect,
		mayUseSocket: o.MayUseSocket,

		peers:    make(map[discovery.Key]*Peer),
		groups:   groups{random: o.Random, named: make(map[string]*Group)},
		draining: make(map[discovery.Key]*Peer),
		orders:   func(discovery.Instance) Orders { return Orders{} },
		drained:  make(chan struct{}),
	}
	p.setOptionsLocked(o)
	p.cursor.Store(p.random.uint64())
	p.copyCursor.Store(p.random.uint64())
	s := build(&Snapshot{}, &p.options, p.groups.current(p.options.Groups), &p.Admission.inflight, nil, nil, time.Time{})
	p.Admission.budget.open(s.terms.budget, nanotime())
	p.snapshot.Store(s)
	if o.NewWitness != nil {
		p.witness = o.NewWitness(p)
		p.witness.Configured(&p.options)
	}
	return p
}

// Snapshot returns the current snapshot.
func (p *Pool) Snapshot() *Snapshot { return p.snapshot.Load() }

// Changed returns a channel that is closed when a newer snapshot is stored. To wait for
// a peer, take the channel first, then pick.
func (p *Pool) Changed() <-chan struct{} { return p.snapshot.Load().superseded }

// Pick chooses a peer for one attempt; a nil q asks for any. An attempt is a retry if
// q.Tried is not empty. Pick fails with [ErrNoPeers], [ErrNoEligible], [ErrAllTried],
// or the error of a limit; see [Limits]. It takes no lock, but for a retry while the budget is
// used up, allocates nothing and reads the clock once.
//
// The peer's transport stays open until the token is done, or Options.DrainTimeout
// ends.
func (p *Pool) Pick(q *Query) (Token, error) {
	var query Query
	if q != nil {
		query = *q
	}
	query.random = p.random
	retry := query.Tried.Len() > 0
	if retry {
		query.Criticality = CriticalitySheddable
	}
	now := nanotime()
	s := p.snapshot.Load()
	if p.queue.length.Load() > 0 && p.queue.mustWait(s, &query) {
		return Token{}, p.Admission.refuse(LimitPeerConnections, query.Refused)
	}
	// It comes first: a refused attempt does not move the cursor.
	h, err := p.Admission.admit(&s.terms, &query, retry, now)
	if err != nil {
		return Token{}, err
	}
	var left *Group // for the fallback; nil: none
	for {
		part, cursor := &s.Part, &p.cursor
		if query.Group != 0 {
			if part = s.part(query.Group); part.Group != nil {
				cursor = &part.Group.cursor
			}
		}
		peer := part.own(&query)
		if peer == nil {
			peer = part.picker.pick(query, now, cursor)
		}
		if peer == nil || query.full.has(peer) { // the latter where a part has one tier
			if query.Fallback != 0 {
				left = part.Group
				query.Group, query.Fallback, query.Client = query.Fallback, 0, 0
				continue
			}
			if query.full == 0 {
				peer = part.acquireResort(&query, s.terms.perPeer)
			}
			if peer == nil || query.full != 0 {
				p.Admission.unadmit(h, &query)
				if query.full != 0 {
					return Token{}, p.Admission.shed(query.Criticality, query.Refused)
				}
				return Token{}, part.refusal()
			}
		} else if !peer.acquire(s.terms.perPeer) {
			if peer.load.isQuiesced() {
				// It was quiesced after s was loaded, so a newer snapshot exists.
				s = p.snapshot.Load()
				continue
			}
			if peer = part.acquireOther(query, s.terms.perPeer, now, cursor); peer == nil {
				p.Admission.unadmit(h, &query)
				if query.full != 0 {
					return Token{}, p.Admission.shed(query.Criticality, query.Refused)
				}
				return Token{}, p.Admission.refuse(s.terms.perPeerKind, query.Refused || query.first)
			}
		}
		var limiter uint8
		if a := s.terms.adaptive; a != nil {
			if limiter = a.enter(peer, query.Criticality, now); limiter == 0 {
				peer.release()
				p.queue.released()
				query.full.add(peer)
				continue // to the next tier
			}
		}
		if !retry {
			p.Admission.budget.deposit(s.terms.budget, now)
		}
		if left != nil {
			left.fallbacks.Add(1)
		}
		t := Token{Peer: peer, start: now, marks: marks{h, limiter, query.Group, query.Client}}
		if s.terms.marked {
			t = s.mark(t, q)
		}
		return t, nil
	}
}

// Reconfigure changes the options. Peers keep their state and transport: a new
// NewTransport or MustPassFirst applies to later peers, a new DrainTimeout to later
// drains. Without MustPassFirst no peer waits for its first check any more. Random and MayConnect
// do not change.
func (p *Pool) Reconfigure(o Options) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if *o.RetryBudget != *p.options.RetryBudget {
		p.Admission.budget.open(newBudgetTerms(o.RetryBudget), nanotime())
	}
	o.MayConnect, o.MayUseSocket, o.NewWitness = p.mayConnect, p.mayUseSocket, p.options.NewWitness
	before := p.options.Groups
	p.setOptionsLocked(o)
	if !slices.EqualFunc(before, o.Groups, func(a, b GroupSelector) bool { return a.Name == b.Name }) {
		// Else the next routes may have groups already that come with another change.
		p.groups.forget(before, o.Groups)
	}
	for _, peer := range sorted(p.peers) {
		peer.stickyID.Store(stickyIDOf(peer.ID, p.options.stickyKey(p.Name)))
		was, is := p.changeLocked(peer, func(c *condition) {
			critical := c.reasons&ReasonRegistry != 0 && !c.onProbation()
			c.setInstance(c.instance, &p.options)
			if critical && c.reasons&ReasonRegistry == 0 { // not before a check has passed
				c.awaitCheck()
			}
		})
		p.notices.queueState(peer, was, is)
		peer.measureLatencies(o.MeasureLatencies)
	}
	if p.witness != nil {
		p.witness.Changing()
	}
	p.publishLocked()
	if p.witness != nil {
		p.witness.Configured(&p.options)
	}
}

func (p *Pool) setOptionsLocked(o Options) {
	if o.Limits.Adaptive && p.Admission.adaptive.Load() == nil {
		p.Admission.adaptive.Store(new(adaptive))
	}
	if o.adaptive = p.Admission.adaptive.Load(); o.adaptive != nil {
		o.adaptive.floor.Store(int64(o.Limits.AdaptiveMin))
	}
	o.MustPassFirst = o.MustPassFirst || o.ActiveOverridesRegistry
	p.options = o
	p.notices.pool, p.notices.notify = p.Name, o.Notify
	p.onFailure.Store(nil)
	if o.OnFailure != nil {
		p.onFailure.Store(&o.OnFailure)
	}
}
