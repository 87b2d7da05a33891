package balancer

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
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

	snapshot atomic.Pointer[Snapshot]
	_        [128 - 16 - 8 - 8]byte
	// cursor is where policies that take turns are. It starts at random, so that
	// many proxies do not march in step, and is on a cache line of its own.
	cursor atomic.Uint64
	_      [128 - 8]byte

	// mu guards the fields below, and what Peer says it guards there.
	mu       sync.Mutex
	options  Options
	set      []discovery.Instance
	peers    map[discovery.Key]*Peer // in the set
	draining map[discovery.Key]*Peer // left the set, not yet retired
	events   []Event                 // not yet sent
	closed   bool
	drained  chan struct{} // closed when the pool is closed and nothing drains
}

// NewPool returns an empty pool. name is the service's name.
func NewPool(name string, o Options) (*Pool, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("pool %q: %w", name, err)
	}
	p := &Pool{
		name:     name,
		requests: metrics.NewRequests(),
		options:  o,
		peers:    make(map[discovery.Key]*Peer),
		draining: make(map[discovery.Key]*Peer),
		drained:  make(chan struct{}),
	}
	p.cursor.Store(rand.Uint64())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.publish()
	return p, nil
}

// Name returns the service's name.
func (p *Pool) Name() string { return p.name }

// Requests returns the counters of the requests that the service answered.
func (p *Pool) Requests() *metrics.Requests { return p.requests }

// Snapshot returns the present state.
func (p *Pool) Snapshot() *Snapshot { return p.snapshot.Load() }

// Changed returns a channel that is closed as soon as there is a newer
// snapshot. To wait for a peer, get the channel, pick, and wait if that
// failed; then start again.
func (p *Pool) Changed() <-chan struct{} { return p.snapshot.Load().superseded }

// Pick chooses a peer for one attempt, by the pool's policy; nil asks for any.
// It fails with [ErrNoPeers], [ErrNoEligible] or [ErrAllTried]. It takes no
// lock and allocates nothing.
func (p *Pool) Pick(q *Query) (Token, error) {
	var query Query
	if q != nil {
		query = *q
	}
	now := nanotime()
	for {
		s := p.snapshot.Load()
		peer := s.picker.pick(query, now, &p.cursor)
		if peer == nil {
			return Token{}, s.refusal()
		}
		if peer.acquire() {
			return Token{Peer: peer, start: now}, nil
		}
		// The peer was taken out after s had been loaded. The snapshot without
		// it is stored before that, so the next turn sees a newer one.
	}
}

// Apply makes set the pool's set of instances and returns what that changed.
// Peers that stay keep their state, those that left drain, and a set without
// a change has no effect. Instances with weight 0 or a status worse than
// warning become peers that get no requests. A closed pool ignores the set.
func (p *Pool) Apply(set []discovery.Instance) discovery.Changes {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return discovery.Changes{}
	}
	return p.apply(set)
}

func (p *Pool) apply(set []discovery.Instance) discovery.Changes {
	changes := discovery.Diff(p.set, set)
	if changes.Empty() {
		return changes
	}
	p.set = slices.Clone(set)
	for _, i := range changes.Removed {
		p.leave(i)
	}
	for _, i := range changes.Added {
		p.join(i)
	}
	for _, u := range changes.Updated {
		p.update(u)
	}
	p.publish()
	return changes
}

// Reconfigure changes the options. Peers keep their state and their transport.
func (p *Pool) Reconfigure(o Options) error {
	o, err := o.withDefaults()
	if err != nil {
		return fmt.Errorf("pool %q: %w", p.name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.options = o
	if !p.closed {
		p.publish()
	}
	return nil
}

// SetReason says that r speaks against the peer id, or no longer does. why is
// the cause in a few words, for people; it may be empty. It reports whether
// the set has such a peer: a verdict on one that has left is void.
//
// r is a single bit that the caller owns; [ReasonConsul] belongs to Apply.
func (p *Pool) SetReason(id discovery.Key, r Reason, down bool, why string) bool {
	if r&ReasonConsul != 0 {
		panic("BUG: ReasonConsul is set by Pool.Apply only")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	peer := p.peers[id]
	if peer == nil {
		return false
	}
	was := peer.condition.Load()
	p.change(peer, func(c *condition) { c.setReason(r, down, why) })
	now := peer.condition.Load()
	if now.state() != was.state() {
		p.note(peer, EventState, was.state().String()+" → "+now.state().String())
	}
	if now.eligible() != was.eligible() {
		p.publish()
	} else {
		p.settle(peer)
		p.flush()
	}
	return true
}

// Close takes every peer out of the pool, for good. Requests in flight go on
// until they are done or Options.DrainTimeout ends; see Drained.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.apply(nil)
	p.closed = true
	p.endIfDrained()
}

// Drained returns a channel that is closed when the pool is closed and all its
// transports are, too.
func (p *Pool) Drained() <-chan struct{} { return p.drained }

// join adds a new peer to the set, or takes one back that is still draining.
func (p *Pool) join(i discovery.Instance) {
	id := i.Key()
	peer := p.draining[id]
	if peer != nil {
		delete(p.draining, id)
		peer.cutTimer.Stop()
		p.change(peer, func(c *condition) {
			c.leaving = false
			c.setInstance(i)
		})
		p.peers[id] = peer
		p.note(peer, EventAdded, "returned while draining")
		return
	}
	peer = &Peer{ID: id, pool: p}
	peer.load.Store(closed)
	c := &condition{since: time.Now()}
	c.setInstance(i)
	peer.condition.Store(c)
	if p.options.NewTransport != nil {
		peer.Transport = p.options.NewTransport(peer)
	}
	p.peers[id] = peer
	p.note(peer, EventAdded, "")
}

// update takes over what changed of a peer other than its identity.
func (p *Pool) update(u discovery.Update) {
	peer := p.peers[u.New.Key()]
	p.change(peer, func(c *condition) { c.setInstance(u.New) })
	p.note(peer, EventUpdated, "")
}

// change stores a changed copy of a peer's condition.
func (p *Pool) change(peer *Peer, f func(*condition)) {
	c := *peer.condition.Load()
	was := c.state()
	f(&c)
	if c.state() != was {
		c.since = time.Now()
	}
	if c.reasons&ReasonDrain == 0 {
		peer.drained = false
	}
	peer.condition.Store(&c)
}

// publish builds and stores the next snapshot, closes the peers that it leaves
// out, and sends the events.
func (p *Pool) publish() {
	prev := p.snapshot.Load()
	next := build(p.options.Policy, sorted(p.peers), sorted(p.draining))
	for _, peer := range next.Eligible {
		peer.load.And(^closed)
	}
	p.store(prev, next)
	if prev != nil {
		for _, peer := range prev.Eligible {
			if !peer.condition.Load().eligible() {
				peer.load.Or(closed)
				if peer.Transport != nil {
					peer.Transport.Drain()
				}
			}
		}
	}
	for _, peer := range next.All {
		p.settle(peer)
	}
	for _, peer := range next.Draining {
		p.settle(peer)
	}
	p.flush()
}

// store makes next the current snapshot.
func (p *Pool) store(prev, next *Snapshot) {
	next.Generation = 1
	if prev != nil {
		next.Generation = prev.Generation + 1
	}
	p.snapshot.Store(next)
	if prev != nil {
		close(prev.superseded)
	}
}

// note keeps an event until flush.
func (p *Pool) note(peer *Peer, kind EventKind, detail string) {
	if p.options.Notify != nil {
		p.events = append(p.events, Event{
			Time: time.Now(), Pool: p.name, Peer: peer, Kind: kind, State: peer.State(), Detail: detail,
		})
	}
}

// flush sends the events, in order.
func (p *Pool) flush() {
	for _, e := range p.events {
		p.options.Notify(e)
	}
	p.events = p.events[:0]
}

// sorted returns the peers in the order of their keys.
func sorted(peers map[discovery.Key]*Peer) []*Peer {
	s := make([]*Peer, 0, len(peers))
	for _, p := range peers {
		s = append(s, p)
	}
	slices.SortFunc(s, func(a, b *Peer) int {
		return cmp.Or(
			cmp.Compare(a.ID.Service, b.ID.Service),
			cmp.Compare(a.ID.Node, b.ID.Node),
			cmp.Compare(a.ID.ID, b.ID.ID),
			cmp.Compare(a.ID.Address, b.ID.Address),
		)
	})
	return s
}
