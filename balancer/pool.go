package balancer

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sluice/discovery"
	"sluice/metrics"
)

// Pool is the peers of one service and the choice among them. It is safe for
// concurrent use.
type Pool struct {
	name     string
	requests *metrics.Requests
	snapshot atomic.Pointer[Snapshot] // stored with mu held
	// onFailure is Options.OnFailure.
	onFailure atomic.Pointer[func(*Peer, Outcome, Streak)]
	random    source // Options.Random
	_         [128 - 16 - 8 - 8 - 8 - 8]byte

	// cursor is where a policy that takes turns is. It starts at random, so that
	// many proxies do not march in step, and has a cache line to itself.
	cursor atomic.Uint64
	_      [128 - 8]byte

	// budget is written by every request, so it has a cache line to itself, and
	// so has inflight where it is counted.
	budget budget
	_      [128 - 16]byte

	inflight atomic.Int64 // attempts, if terms.counted
	_        [128 - 8]byte

	retries  atomic.Int64 // in flight
	pending  atomic.Int64 // requests that wait for a peer
	refusals [NumLimits]atomic.Uint64

	mayConnect func(discovery.Instance, netip.AddrPort) error // Options.MayConnect

	// mu guards the fields below and those that Peer says it guards.
	mu       sync.Mutex
	options  Options
	set      []discovery.Instance
	peers    map[discovery.Key]*Peer         // those in the set
	draining map[discovery.Key]*Peer         // those that left it, until they are retired
	drains   map[discovery.Key]StandingDrain // by an operator, of present instances too
	failing  []*Peer                         // that are since the last flush
	events   []Event                         // not sent yet
	closed   bool
	drained  chan struct{} // closed when the pool is and nothing drains

	warmSince time.Time   // since when there has been an eligible peer; zero: there is none
	warmTimer *time.Timer // runs while a peer warms
}

// NewPool returns an empty pool for the service of this name.
func NewPool(name string, o Options) (*Pool, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("pool %q: %w", name, err)
	}
	p := &Pool{
		name:     name,
		requests: metrics.NewRequests(),
		random:   o.Random,

		mayConnect: o.MayConnect,

		peers:    make(map[discovery.Key]*Peer),
		draining: make(map[discovery.Key]*Peer),
		drains:   make(map[discovery.Key]StandingDrain),
		drained:  make(chan struct{}),
	}
	p.setOptions(o)
	p.cursor.Store(p.random.uint64())
	s := build(&Snapshot{}, &o, &p.inflight, nil, nil, time.Time{})
	p.budget.open(s.terms.budget, nanotime())
	p.snapshot.Store(s)
	return p, nil
}

// Name returns the service's name.
func (p *Pool) Name() string { return p.name }

// Requests returns the counters of the requests to the service.
func (p *Pool) Requests() *metrics.Requests { return p.requests }

// Snapshot returns the present state.
func (p *Pool) Snapshot() *Snapshot { return p.snapshot.Load() }

// Changed returns a channel that is closed as soon as there is a newer
// snapshot. To wait for a peer, take the channel first, then pick, and wait if
// that failed.
func (p *Pool) Changed() <-chan struct{} { return p.snapshot.Load().superseded }

// Pick chooses a peer for one attempt, by the pool's policy; a nil q asks for
// any. An attempt is a retry if a peer was tried before. Pick fails with
// [ErrNoPeers], [ErrNoEligible] or [ErrAllTried], or with the error of a limit
// that was reached; see [Limits]. It takes no lock, allocates nothing and reads
// the clock once.
//
// The peer's transport is not closed before the token is done, except by
// Options.DrainTimeout.
func (p *Pool) Pick(q *Query) (Token, error) {
	var query Query
	if q != nil {
		query = *q
	}
	query.random = p.random
	retry := query.Tried.Len() > 0
	now := nanotime()
	s := p.snapshot.Load()
	h, err := p.admit(&s.terms, retry, now) // first: who is refused does not take a turn
	if err != nil {
		return Token{}, err
	}
	for {
		peer := s.picker.pick(query, now, &p.cursor)
		if peer == nil {
			p.unadmit(h)
			return Token{}, s.refusal()
		}
		if !peer.acquire(s.terms.PeerRequests) {
			if peer.isQuiesced() {
				// That happened since s was loaded. The snapshot that leaves the
				// peer out was stored before that, so there is a newer one.
				s = p.snapshot.Load()
				continue
			}
			// It has as many requests as it may have.
			if peer = s.acquireOther(query, now, &p.cursor); peer == nil {
				p.unadmit(h)
				return Token{}, p.refuse(LimitPeerRequests)
			}
		}
		if !retry {
			p.budget.deposit(s.terms.budget, now)
		}
		return Token{Peer: peer, start: now, holds: h}, nil
	}
}

// Reconfigure changes the options. Peers keep their state and their transport:
// another NewTransport or MustPassFirst is for peers that are yet to come,
// another DrainTimeout for drains that are. Random and MayConnect stay what they
// were.
func (p *Pool) Reconfigure(o Options) error {
	o, err := o.withDefaults()
	if err != nil {
		return fmt.Errorf("pool %q: %w", p.name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if *o.RetryBudget != *p.options.RetryBudget {
		p.budget.open(newBudgetTerms(o.RetryBudget), nanotime())
	}
	o.MayConnect = p.mayConnect
	p.setOptions(o)
	for _, peer := range sorted(p.peers) {
		peer.name(p.stickyKey())
		p.adapt(peer)
		peer.measureLatencies(o.MeasureLatencies)
	}
	p.publish()
	return nil
}

// adapt applies Options.ActiveOverridesConsul to a peer that joined when it was
// different.
func (p *Pool) adapt(peer *Peer) {
	was, is := p.change(peer, func(c *condition) {
		critical := c.reasons&ReasonConsul != 0 && !c.onProbation()
		c.setInstance(c.instance, &p.options)
		if critical && c.reasons&ReasonConsul == 0 { // not before a check has passed
			c.awaitCheck()
		}
	})
	p.noteState(peer, was, is)
}

// setOptions stores o. mu must be held, or nobody know p yet.
func (p *Pool) setOptions(o Options) {
	p.options = o
	p.onFailure.Store(nil)
	if o.OnFailure != nil {
		p.onFailure.Store(&o.OnFailure)
	}
}

// Close takes every peer out of the pool, for good. Requests in flight go on
// until they are done or Options.DrainTimeout ends; see Drained.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.apply(nil)
	p.endIfDrained()
}

// Drained returns a channel that is closed when the pool and all its
// transports are.
func (p *Pool) Drained() <-chan struct{} { return p.drained }
