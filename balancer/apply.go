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

// Apply replaces the pool's set of instances and returns the difference. The set may be
// in any order; the pool stores it, so the caller must not change it afterwards.
//
// Peers that stay keep their state, peers that left drain, and a set without a
// difference has no effect. An instance with weight 0, or with a status worse than
// warning, becomes a peer that gets no requests. A closed pool ignores the set.
func (p *Pool) Apply(set []discovery.Instance) discovery.Changes { return p.apply(set, false) }

// ApplyMoved is Apply for the first set of another source, such as another registry, which may name
// the same processes otherwise: an instance at the address of a peer that leaves is no new one. If
// that peer has been in use, the instance need not pass an active check first, and what checks have
// said of the peer counts until the first one of its own.
func (p *Pool) ApplyMoved(set []discovery.Instance) discovery.Changes { return p.apply(set, true) }

func (p *Pool) apply(set []discovery.Instance, moved bool) discovery.Changes {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return discovery.Changes{}
	}
	p.known.Store(true)
	if p.witness != nil {
		p.witness.Changing()
		defer p.witness.Applied(set, nanotime())
	}
	changes := discovery.Diff(p.set, set)
	if changes.Empty() {
		return changes
	}
	p.set = set
	former := make(map[string]*condition) // of peers that have been in use, by address
	for _, i := range changes.Removed {
		peer := p.peers[i.Key()]
		if c := peer.condition.Load(); moved && c.usableInPanic() {
			former[peer.ID.Address] = c
		}
		p.leaveLocked(peer)
		p.limitDrainLocked(peer)
	}
	for _, i := range changes.Added {
		p.joinLocked(i, former[i.HostPort()])
	}
	for _, u := range changes.Updated {
		peer := p.peers[u.New.Key()]
		was, is := p.changeLocked(peer, func(c *condition) {
			c.orders = p.orders(u.New)
			c.setInstance(u.New, &p.options)
		})
		if what := describe(u); what != "" {
			p.notices.add(Event{Peer: peer, Kind: EventUpdated, Was: was.state(), Detail: what, Update: u})
		}
		p.notices.queueState(peer, was, is)
	}
	p.publishLocked()
	if p.options.CutRemoved { // no snapshot has those any more that no longer lead
		cut := false
		for _, i := range changes.Removed {
			if peer := p.draining[i.Key()]; peer != nil {
				p.retireLocked(peer, EventCut, fmt.Sprintf("it no longer leads, %d in flight", peer.Inflight()))
				cut = true
			}
		}
		if cut {
			p.publishDrainingLocked()
			p.notices.flush()
		}
	}
	return changes
}

// Known reports whether the pool has got a set, which may be empty. Without one nothing is known
// about the service yet.
func (p *Pool) Known() bool { return p.known.Load() }

// Verdict sets or clears a reason of one peer; see [Pool.SetReasons].
type Verdict struct {
	Peer *Peer
	Down bool   // set the reason, or clear it
	Why  string // a short cause for people; may be empty
	// Other says that another service has the peer's address. The peer gets no requests then,
	// not even in panic.
	Other bool
}

// SetReasons sets or clears reason r, a single bit that the caller owns, of some peers with one
// new snapshot. It ignores verdicts on peers of other pools and on peers that have drained.
// After it has set a reason, no request starts on the peer, except in panic
// (Options.PanicThreshold) and as of Query.Resort.
func (p *Pool) SetReasons(r Reason, verdicts ...Verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.witness != nil {
		p.witness.Changing()
		defer p.witness.Judged(r, verdicts)
	}
	differs := false // a new snapshot is needed
	for _, v := range verdicts {
		if p.peers[v.Peer.ID] != v.Peer && p.draining[v.Peer.ID] != v.Peer {
			continue
		}
		was, is := p.changeLocked(v.Peer, func(c *condition) {
			c.setReason(r, v.Down, v.Why)
			if r&ReasonActive != 0 {
				c.other = v.Down && v.Other
			}
			if v.Down && r&(ReasonActive|ReasonEjected) != 0 {
				c.fail(v.Why)
			}
		})
		p.notices.queueState(v.Peer, was, is)
		differs = differs || is.eligible() != was.eligible() || is.usableInPanic() != was.usableInPanic()
	}
	if differs {
		p.publishLocked()
		return
	}
	p.notices.flush()
}

// failOnProbation takes a peer on probation, to which no connection can be made, out of use.
func (p *Pool) failOnProbation(peer *Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peers[peer.ID] != peer {
		return
	}
	was, is := p.changeLocked(peer, func(c *condition) { c.fail("no connection") })
	p.notices.queueState(peer, was, is)
	if was.eligible() {
		p.publishLocked()
	}
}

// WithFailures returns set with Instance.Failed of instances that have failed on probation.
func (p *Pool) WithFailures(set []discovery.Instance) []discovery.Instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	copied := false
	for n, i := range set {
		if i.Probation.IsZero() || p.peers[i.Key()] == nil {
			continue
		}
		c := p.peers[i.Key()].condition.Load()
		if c.failed == i.Failed || !c.instance.Probation.Equal(i.Probation) {
			continue
		}
		if !copied {
			set, copied = slices.Clone(set), true
		}
		set[n].Failed = c.failed
	}
	return set
}

// FailedChecks returns why active checks of peers in the set fail, of those that get no requests
// therefore.
func (s *Snapshot) FailedChecks() map[discovery.Key]string {
	failed := make(map[discovery.Key]string)
	for _, peer := range s.All {
		if c := peer.condition.Load(); c.failsChecks() {
			failed[peer.ID] = c.whyActive()
		}
	}
	return failed
}

// joinLocked adds a peer to the set, or takes back one that still drains. former is the condition
// of the peer that it was under another name; nil: it was none.
func (p *Pool) joinLocked(i discovery.Instance, former *condition) {
	id := i.Key()
	if peer := p.draining[id]; peer != nil {
		delete(p.draining, id)
		p.peers[id] = peer
		peer.cutTimer.Stop()
		peer.cutTimer = nil
		peer.stickyID.Store(stickyIDOf(peer.ID, p.options.stickyKey(p.Name)))
		peer.measureLatencies(p.options.MeasureLatencies)
		p.changeLocked(peer, func(c *condition) {
			c.leaving, c.orders = false, p.orders(i)
			c.setInstance(i, &p.options)
		})
		p.notices.queue(peer, EventAdded, "returned while draining")
		return
	}
	peer := &Peer{ID: id, pool: p}
	peer.load.Store(quiesced) // until a snapshot has it
	now := nanotime()
	peer.streakStart.Store(now)
	peer.lastFailure.Store(now) // no answer is older
	p.numbers = p.numbers%127 + 1
	if peer.number = p.numbers; p.alike.until.Load() != 0 {
		peer.streak.Store(looked)
	}
	peer.stickyID.Store(stickyIDOf(peer.ID, p.options.stickyKey(p.Name)))
	peer.condition.Store(&condition{leaving: true, since: time.Now()})
	p.changeLocked(peer, func(c *condition) {
		c.leaving, c.orders = false, p.orders(i)
		c.setInstance(i, &p.options)
		switch {
		case former != nil:
			c.setReason(ReasonActive, former.failsChecks(), former.whyActive())
		case p.options.MustPassFirst:
			c.awaitCheck()
		case p.options.FailedBefore != nil:
			why := p.options.FailedBefore(i)
			c.setReason(ReasonActive, why != "", why)
		}
	})
	peer.measureLatencies(p.options.MeasureLatencies)
	if p.witness != nil {
		against := Reason(0)
		if peer.condition.Load().failsChecks() {
			against = ReasonActive
		}
		peer.record = p.witness.Joined(peer, former != nil, against)
	}
	if p.options.NewTransport != nil {
		peer.Transport = p.options.NewTransport(peer)
	}
	p.peers[id] = peer
	reasons := peer.Reasons()
	p.notices.add(Event{Peer: peer, Kind: EventAdded, Detail: strings.Join(reasons, "; "), Reasons: reasons})
}

// describe lists what changed in an instance; "" if only the output of a check did.
func describe(u discovery.Update) string {
	var parts []string
	if u.Old.Status != u.New.Status {
		parts = append(parts, fmt.Sprintf("%s → %s", u.Old.Status, u.New.Status))
	}
	if u.Old.Weight != u.New.Weight {
		parts = append(parts, fmt.Sprintf("weight %d → %d", u.Old.Weight, u.New.Weight))
	}
	if u.Old.Priority != u.New.Priority {
		parts = append(parts, fmt.Sprintf("priority %d → %d", u.Old.Priority, u.New.Priority))
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

// publishLocked builds and stores the next snapshot, quiesces the peers that it no
// longer contains, and sends the events.
//
// A peer is resumed before a snapshot contains it, and quiesced after. So when Pick
// cannot acquire a peer, a newer snapshot exists.
func (p *Pool) publishLocked() {
	if p.retired != nil { // its snapshot stays until it is closed
		p.notices.flush()
		return
	}
	warming := p.endWarmingLocked()
	prev := p.snapshot.Load()
	next := build(prev, &p.options, p.groups.current(p.options.Groups), &p.Admission.inflight, sorted(p.peers), sorted(p.draining), time.Now())
	next.retally(prev)
	next.terms.adaptive.assign(next, p.options.Tiers)
	for _, peer := range next.used {
		peer.load.resume()
	}
	p.snapshot.replace(next)
	for _, peer := range prev.used {
		peer.used = false
	}
	for _, peer := range next.used {
		peer.used = true
	}
	for _, peer := range prev.used {
		if !peer.used {
			peer.quiesce()
		}
	}
	p.notices.queuePanic(prev, next)
	p.finishDrainsLocked(next.Draining...)
	p.finishDrainsLocked(next.All...)
	switch {
	case len(next.Eligible) == 0:
		p.warming.since = time.Time{}
	case p.warming.since.IsZero():
		p.warming.since = time.Now()
	}
	p.scheduleWarmingLocked(warming)
	p.notices.flush()
}

// retally makes the attempts on each peer count for its group in s.
func (s *Snapshot) retally(prev *Snapshot) {
	if prev.Groups != nil && s.Groups == nil {
		for _, peer := range slices.Concat(s.All, s.Draining) { // which may return
			peer.retally(func(t *tally) { t.group = nil })
		}
	}
	for _, part := range s.Groups {
		for _, peer := range part.All {
			peer.retally(func(t *tally) { t.group = part.Group })
		}
	}
}

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
