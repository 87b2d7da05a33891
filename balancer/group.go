package balancer

import (
	"maps"
	"math"
	"slices"
	"sync/atomic"

	"sluice/discovery"
	"sluice/observe/metrics"
)

// RestGroup is the name of the group of all instances that no selector selects. A pool
// has it if it has any group.
const RestGroup = "rest"

// GroupSelector names a group of a pool and selects its instances: the ones that meet every
// condition and that no earlier group has.
type GroupSelector struct {
	Name string // not RestGroup, nor that of another group
	Selector
}

// groupOf returns the index of i's group; len(groups) is RestGroup.
func groupOf(i *discovery.Instance, groups []GroupSelector) int {
	for n := range groups {
		if groups[n].selects(i) {
			return n
		}
	}
	return len(groups)
}

// GroupID identifies a group within its pool. 0 is the whole pool.
type GroupID uint16

// maxGroups is how many groups a pool can distinguish at a time. Further ones are the whole pool.
const maxGroups = math.MaxUint16

// Group is a part of the peers of a pool. It is a view: peers, their health, connections
// and counters, and all limits, belong to the pool. Its own are the counters of its
// attempts, its turns of round robin, and the order of the requests that wait for one
// of its connections. They survive changes of the groups, until two in a row lack the group.
//
// Its methods are safe for concurrent use.
type Group struct {
	id       GroupID
	name     string
	attempts *metrics.Requests

	onDone atomic.Pointer[func(client uint64, o Outcome)]

	fallbacks atomic.Uint64
	_         [128 - 8]byte
	cursor    atomic.Uint64 // as Pool.cursor
	_         [128 - 8]byte
	inflight  atomic.Int64 // attempts on its peers, with PolicyHash
	_         [128 - 8]byte
}

// ID returns the group's number for [Query.Group].
func (g *Group) ID() GroupID { return g.id }

func (g *Group) Name() string {
	if g == nil {
		return ""
	}
	return g.name
}

// Attempts returns the counters of the attempts on peers that were in the group, by
// whichever route they came, without copies; see [Pool.PickMirror]. An attempt without an answer
// counts as status 502, or 504 after a timeout. Attempts that a client or another peer ended count
// as [metrics.ClassAborted]; those that a local limit, a stale connection or the mesh ended do not
// count. The sizes of bodies, retries and codes of gRPC are counted by service only.
func (g *Group) Attempts() *metrics.Requests { return g.attempts }

// Fallbacks returns how many picks found no peer in the group, and one of
// Query.Fallback.
func (g *Group) Fallbacks() uint64 { return g.fallbacks.Load() }

// OnDone sets what gets the client and the outcome of each attempt that a split assigned to the
// group, as far as [Query].Client names clients; nil is nothing. It runs in [Token.Done], and must
// be quick.
func (g *Group) OnDone(f func(client uint64, o Outcome)) {
	if f == nil {
		g.onDone.Store(nil)
		return
	}
	g.onDone.Store(&f)
}

// done passes on the client of an attempt, unless its peer has another group by now.
func (g *Group) done(t Token, o Outcome) {
	if g == nil || g.id != t.assigned {
		return
	}
	if f := g.onDone.Load(); f != nil {
		(*f)(uint64(t.client), o)
	}
}

// count counts an attempt that began at start.
func (g *Group) count(o Outcome, start int64) {
	var status int
	switch o.Class {
	case OutcomeOK:
		if o.Status == 0 && o.Latency == 0 {
			return // the end of a stream, which Token.Connected has counted
		}
		status = max(o.Status, 200)
	case OutcomeServerError:
		status = o.Status
	case OutcomeConnectFailure, OutcomeReset, OutcomeRefused:
		status = 502
	case OutcomeTimeout:
		status = 504
	case OutcomeClientGone, OutcomeSuperseded:
		status = metrics.StatusClientClosedRequest
	default:
		return
	}
	g.attempts.Observe(uint32(start), status, o.Latency, 0, 0) // concurrent attempts begin at different times
}

// Group returns the group with that name. It is the same one before, while and after the options
// have it, until two changes of their groups in a row lack it. Before and after, its peers are the
// peers of the whole pool: a request that was routed just before a change does not fail.
func (p *Pool) Group(name string) *Group {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.groups.of(name)
}

// groups are those of a pool. Pool.mu guards them.
type groups struct {
	random source
	named  map[string]*Group // also some that the options lack
	last   GroupID           // that was given
}

func (all *groups) of(name string) *Group {
	g := all.named[name]
	if g == nil {
		g = &Group{name: name, attempts: metrics.NewRequests()}
		if len(all.named) < maxGroups {
			g.id = all.newID()
		}
		g.cursor.Store(all.random.uint64())
		all.named[name] = g
	}
	return g
}

// newID returns an id that no group has, and that none had for as long as possible:
// requests that were routed long ago may still have it.
func (all *groups) newID() GroupID {
	for {
		all.last++
		used := all.last == 0
		for _, g := range all.named {
			used = used || g.id == all.last
		}
		if !used {
			return all.last
		}
	}
}

// forget forgets the groups that neither the options nor the ones before them have: with names that
// change with each release there would be ever more. The route table in use may have the groups of
// the options before.
func (all *groups) forget(before, now []GroupSelector) {
	maps.DeleteFunc(all.named, func(name string, _ *Group) bool {
		has := func(s GroupSelector) bool { return s.Name == name }
		return name != RestGroup && !slices.ContainsFunc(now, has) && !slices.ContainsFunc(before, has)
	})
}

// current returns the groups of the options, and RestGroup; nil without groups.
func (all *groups) current(selectors []GroupSelector) []*Group {
	if len(selectors) == 0 {
		return nil
	}
	groups := make([]*Group, 0, len(selectors)+1)
	for i := range selectors {
		groups = append(groups, all.of(selectors[i].Name))
	}
	return append(groups, all.of(RestGroup))
}

// tally is where the attempts on a peer are counted, besides the peer itself. It is
// immutable, but for its counters.
type tally struct {
	latencies *latencyCounters // nil if not measured
	group     *Group           // nil without groups
}

func (t *tally) count(o Outcome, of Token) {
	if t.latencies != nil {
		t.latencies.count(o)
	}
	if t.group != nil && of.held&countsCopy == 0 {
		t.group.count(o, of.start)
	}
}

// Group returns the group of the peer, or nil if its pool has no groups.
func (p *Peer) Group() *Group {
	if t := p.tally.Load(); t != nil {
		return t.group
	}
	return nil
}

// retally changes where attempts on the peer are counted. Writers only.
func (p *Peer) retally(change func(*tally)) {
	var next tally
	if t := p.tally.Load(); t != nil {
		next = *t
	}
	before := next
	if change(&next); next == before {
		return
	}
	if next == (tally{}) {
		p.tally.Store(nil)
		return
	}
	p.tally.Store(&next)
}
