package balancer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/discovery"
)

// Apply makes set the pool's set of instances and returns what that changed.
// The set may be in any order and is kept, so it must not change afterwards.
//
// Peers that stay keep their state, those that left drain, and a set that
// changes nothing has no effect. An instance with weight 0, or in a status
// worse than warning, is a peer that gets no requests. A closed pool ignores
// the set.
func (p *Pool) Apply(set []discovery.Instance) discovery.Changes {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return discovery.Changes{}
	}
	return p.apply(set)
}

// apply is Apply with mu held, as are the functions below.
func (p *Pool) apply(set []discovery.Instance) discovery.Changes {
	changes := discovery.Diff(p.set, set)
	if changes.Empty() {
		return changes
	}
	p.set = set
	for _, i := range changes.Removed {
		p.leave(p.peers[i.Key()])
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

// SetReason says that r speaks against the peer id, or no longer does. why is
// the cause in a few words, for people; it may be empty. It reports whether the
// set has such a peer: a verdict on one that has left is void.
//
// r is a single bit that the caller owns; [ReasonConsul] and [ReasonAddress]
// belong to Apply. Once SetReason has returned with a reason against a peer, no
// request is started on it, unless Options.PanicThreshold has it used all the same,
// which [ReasonDrain] excludes: if none is in flight, none will be.
//
// [ReasonDrain] stands until it is taken back, even if the instance leaves the
// set and returns: it may be restarted and looked at before it gets requests
// again. It can be taken back while the instance is away; see
// [Pool.StandingDrains].
func (p *Pool) SetReason(id discovery.Key, r Reason, down bool, why string) bool {
	if r&(ReasonConsul|ReasonAddress) != 0 {
		panic("BUG: ReasonConsul and ReasonAddress are for Pool.Apply to set")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	peer := p.peers[id]
	if peer == nil && r == ReasonDrain {
		peer = p.draining[id] // it may return
	}
	if peer == nil {
		return r == ReasonDrain && !down && p.forget(id)
	}
	p.judge(r, Verdict{peer, down, why})
	return true
}

// Verdict is what SetReasons says of a peer.
type Verdict struct {
	Peer *Peer
	Down bool   // whether the reason speaks against it
	Why  string // as for Pool.SetReason
}

// SetReasons is SetReason for many peers in one step, which is a lot cheaper
// than one after the other. Verdicts on peers that drain because they left the
// set count, since these may return; those on peers that are gone for good, or
// are another pool's, are void. It returns how many were not.
func (p *Pool) SetReasons(r Reason, verdicts ...Verdict) int {
	if r&(ReasonConsul|ReasonAddress) != 0 {
		panic("BUG: ReasonConsul and ReasonAddress are for Pool.Apply to set")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	known := make([]Verdict, 0, len(verdicts))
	for _, v := range verdicts {
		if p.peers[v.Peer.ID] == v.Peer || p.draining[v.Peer.ID] == v.Peer {
			known = append(known, v)
		}
	}
	p.judge(r, known...)
	return len(known)
}

// judge carries out verdicts on peers of the pool.
func (p *Pool) judge(r Reason, verdicts ...Verdict) {
	differs := false // whether a snapshot tells the difference
	for _, v := range verdicts {
		was, is := p.change(v.Peer, func(c *condition) {
			c.setReason(r, v.Down, v.Why)
			if v.Down && r&(ReasonActive|ReasonEjected) != 0 {
				c.fail(v.Why)
			}
		})
		switch {
		case r&ReasonDrain == 0:
		case v.Down:
			p.remember(v.Peer, v.Why)
		default:
			p.forget(v.Peer.ID)
			v.Peer.drained = false
		}
		p.noteState(v.Peer, was, is)
		differs = differs || is.eligible() != was.eligible() || is.usableInPanic() != was.usableInPanic()
	}
	if differs {
		p.publish()
		return
	}
	for _, v := range verdicts {
		p.settle(v.Peer)
	}
	p.flush()
}

// failOnProbation ends the use of a peer on probation that no connection could be
// made to. It takes mu.
func (p *Pool) failOnProbation(peer *Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peers[peer.ID] != peer {
		return
	}
	was, is := p.change(peer, func(c *condition) { c.fail("no connection") })
	p.noteState(peer, was, is)
	if was.eligible() {
		p.publish()
	}
}

// join adds a peer to the set, or takes back one that still drains.
func (p *Pool) join(i discovery.Instance) {
	id := i.Key()
	if peer := p.draining[id]; peer != nil {
		delete(p.draining, id)
		p.peers[id] = peer
		peer.cutTimer.Stop()
		peer.name(p.stickyKey())
		p.change(peer, func(c *condition) {
			c.leaving = false
			c.setInstance(i, &p.options)
		})
		p.note(peer, EventAdded, "returned while draining")
		return
	}
	peer := &Peer{ID: id, pool: p}
	peer.load.Store(quiesced) // until a snapshot has it
	peer.streakStart.Store(nanotime())
	peer.name(p.stickyKey())
	peer.condition.Store(&condition{leaving: true, since: time.Now()})
	p.change(peer, func(c *condition) {
		c.leaving = false
		c.setInstance(i, &p.options)
		if p.options.MustPassFirst || p.options.ActiveOverridesConsul {
			c.awaitCheck()
		}
		if d, standing := p.drains[id]; standing {
			c.setReason(ReasonDrain, true, d.Why)
		}
	})
	peer.measureLatencies(p.options.MeasureLatencies)
	if p.options.NewTransport != nil {
		peer.Transport = p.options.NewTransport(peer)
	}
	p.peers[id] = peer
	p.note(peer, EventAdded, strings.Join(peer.Reasons(), "; "))
}

// update takes over what the registry changed of a peer.
func (p *Pool) update(u discovery.Update) {
	peer := p.peers[u.New.Key()]
	was, is := p.change(peer, func(c *condition) { c.setInstance(u.New, &p.options) })
	if what := describe(u); what != "" {
		p.note(peer, EventUpdated, what)
	}
	p.noteState(peer, was, is)
}

// describe says what changed in an instance, or "" if it is only the output of
// a check.
func describe(u discovery.Update) string {
	var parts []string
	if u.Old.Status != u.New.Status {
		parts = append(parts, fmt.Sprintf("%s → %s", u.Old.Status, u.New.Status))
	}
	if u.Old.Weight != u.New.Weight {
		parts = append(parts, fmt.Sprintf("weight %d → %d", u.Old.Weight, u.New.Weight))
	}
	if !slices.Equal(u.Old.Tags, u.New.Tags) {
		parts = append(parts, "tags")
	}
	if !maps.Equal(u.Old.Meta, u.New.Meta) {
		parts = append(parts, "meta")
	}
	switch was, is := u.Old.Probation, u.New.Probation; {
	case was.IsZero() && !is.IsZero():
		parts = append(parts, "lost by the registry, on probation")
	case !was.IsZero() && is.IsZero():
		parts = append(parts, "listed again")
	}
	if u.Old.Node != u.New.Node {
		parts = append(parts, fmt.Sprintf("node %s → %s", u.Old.Node, u.New.Node))
	}
	if u.Old.Datacenter != u.New.Datacenter {
		parts = append(parts, "datacenter")
	}
	return strings.Join(parts, ", ")
}

// publish makes what changed visible: it builds and stores the next snapshot,
// quiesces the peers that are not in it any more, and sends the events.
//
// The order matters. A peer is resumed before a snapshot has it and quiesced
// after one has it no more, so that Pick, when it fails to acquire a peer,
// always finds a newer snapshot.
func (p *Pool) publish() {
	warming := p.cool()
	prev := p.snapshot.Load()
	next := build(prev, &p.options, &p.inflight, sorted(p.peers), sorted(p.draining), time.Now())
	for _, peer := range next.Eligible {
		peer.resume()
	}
	p.store(next)
	for _, peer := range prev.Eligible {
		peer.eligible = false
	}
	for _, peer := range next.Eligible {
		peer.eligible = true
	}
	for _, peer := range prev.Eligible {
		if !peer.eligible {
			peer.quiesce()
		}
	}
	p.notePanic(prev, next)
	p.settle(next.Draining...)
	p.settle(next.All...)
	switch {
	case len(next.Eligible) == 0:
		p.warmSince = time.Time{}
	case p.warmSince.IsZero():
		p.warmSince = time.Now()
	}
	p.keepWarming(warming)
	p.flush()
}

// store makes next the present snapshot.
func (p *Pool) store(next *Snapshot) {
	prev := p.snapshot.Swap(next)
	close(prev.superseded)
}

// sorted returns the peers in the order of their keys.
func sorted(peers map[discovery.Key]*Peer) []*Peer {
	return slices.SortedFunc(maps.Values(peers), comparePeers)
}

func comparePeers(a, b *Peer) int { return compareKeys(a.ID, b.ID) }

func compareKeys(a, b discovery.Key) int {
	return cmp.Or(
		cmp.Compare(a.Service, b.Service),
		cmp.Compare(a.ID, b.ID),
		cmp.Compare(a.Address, b.Address),
		cmp.Compare(a.Machine, b.Machine),
	)
}
