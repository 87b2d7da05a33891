package consul

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/observe/wake"
)

const (
	// queriesPerConnection is the number of queries that share a connection of HTTP/2.
	// Consul's server accepts 250 streams on one; then net/http opens another.
	queriesPerConnection = 100

	// minConnections is the maximum number of queries that do not block while an agent does
	// not answer, and of all after ReleaseConnections: an overview and another query need less.
	minConnections = 8

	// fewest is the lowest limit after answers 429. With one query more than the last place, a
	// single loop need not ask every second.
	fewest = 2

	// growInterval is the time after a 429 until the limit grows by a sixteenth, and
	// again after the same time. Other clients at this address use the same
	// connections, so nothing else shows that some are free.
	growInterval = 30 * time.Second
	// shrinkInterval is the minimum time between two reductions of the limit by answers
	// 429: answers to concurrent queries have the same cause.
	shrinkInterval = time.Second

	// lastWait is how long queries in the last places block, so that others get these places soon:
	// 1/32 of the limit, or 1/16 while answers 429 or continued queries reduce it.
	lastWait = time.Second
	// reducedWait is how long a query blocks that no view answers, while the limit is reduced by
	// answers 429: Consul continues such a query after its cancellation and counts its
	// connection until the wait is over, and the agent accepts few.
	reducedWait = 10 * time.Second

	// maxInTurn is the maximum number of queries of kindInTurn in flight. A near agent answers
	// 10,000 of them within seconds.
	maxInTurn = 16
)

// queryKind says which bounds a query is subject to.
type queryKind uint8

const (
	kindNonBlocking queryKind = iota
	kindBlocking
	kindInTurn // it does not block: see Query.InTurn
)

// gate limits the queries in flight, and decides whether each loop may have a blocking
// query. It is safe for concurrent use.
//
// Who waits for a place is behind those that came before. Of kindInTurn at most maxInTurn queries
// are in flight or wait for a place. The others wait for that, and nobody is behind them.
type gate struct {
	resized wake.All // limit has changed

	mu sync.Mutex // guards the fields below

	connections int          // that queries may have
	multiplexed *atomic.Bool // of the agent in use
	most        int          // the limit without answers 429
	accepted    int          // the limit of answers 429
	limit       int          // queries that may be in flight: accepted, less with continued ones
	nonBlocking int          // of the queries in flight
	inTurn      int          // of the queries in flight: they are of kindInTurn
	long        int          // of the queries in flight: they block for longer than lastWait
	// continued has the latest ends of the canceled queries that an agent, known by its
	// multiplexed, continues.
	continued  map[*atomic.Bool][]time.Time
	unanswered bool // the agent does not answer
	// bound is the limit of nonBlocking until the agent answers and none waits; 0: no limit.
	bound     int
	used      int       // queries in flight
	waiting   []waiting // for a place, in order of arrival
	outOfTurn []waiting // of kindInTurn, in order of arrival, until they are in waiting
	changed   time.Time // last change of limit by a 429

	lagging        bool            // the agent's views may be old, so that servers answer
	loops          int             // loops that run
	oversubscribed bool            // more loops than queries that may block
	lasting        context.Context // ends, and is replaced, when oversubscribed changes
	endLasting     context.CancelFunc
}

// waiting is a query that waits for admission.
type waiting struct {
	result chan error // of enter, once
	kind   queryKind
}

// newGate returns a gate for a number of connections.
func newGate(connections int) *gate {
	g := &gate{connections: connections, multiplexed: new(atomic.Bool), most: connections, accepted: connections, limit: connections,
		continued: make(map[*atomic.Bool][]time.Time)}
	g.lasting, g.endLasting = context.WithCancel(context.Background())
	return g
}

// enter waits until a query may be in flight. The caller calls leave after the query.
// The error is the cause of the end of ctx, or of setUnanswered: the caller does not call leave.
func (g *gate) enter(ctx context.Context, kind queryKind) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w := g.queue(kind)
	select {
	case err := <-w.result:
		return err
	case <-ctx.Done():
		g.abandon(w)
		return context.Cause(ctx)
	}
}

// queue lets a query wait, and admits it if there is room.
func (g *gate) queue(kind queryKind) waiting {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.forgetContinuedLocked(now)
	g.growLocked(now)
	w := waiting{make(chan error, 1), kind}
	if kind == kindInTurn {
		g.outOfTurn = append(g.outOfTurn, w)
	} else {
		g.waiting = append(g.waiting, w)
	}
	g.admitLocked()
	return w
}

// tryEnter is enter for a query that does not block, without a wait. It reports whether
// the query is admitted; if not, the caller does not call leave.
func (g *gate) tryEnter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	room := g.roomLocked(kindNonBlocking)
	if room {
		g.countLocked(kindNonBlocking, 1)
	}
	return room
}

// abandon removes a query from those that wait, or undoes its admission.
func (g *gate) abandon(w waiting) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case err := <-w.result:
		if err == nil {
			g.countLocked(w.kind, -1)
		}
	default:
		same := func(other waiting) bool { return other == w }
		g.waiting = slices.DeleteFunc(g.waiting, same)
		g.outOfTurn = slices.DeleteFunc(g.outOfTurn, same)
	}
	g.admitLocked()
}

// leave ends a query. long is what shorten returned.
func (g *gate) leave(kind queryKind, long bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.countLocked(kind, -1)
	if long {
		g.long--
	}
	g.admitLocked()
}

func (g *gate) countLocked(kind queryKind, n int) {
	g.used += n
	if kind != kindBlocking {
		g.nonBlocking += n
	}
	if kind == kindInTurn {
		g.inTurn += n
	}
}

// admitLocked admits waiting queries in order of their arrival.
func (g *gate) admitLocked() {
	g.giveTurnsLocked()
	g.waiting = slices.DeleteFunc(g.waiting, func(w waiting) bool {
		if !g.roomLocked(w.kind) {
			return false
		}
		g.countLocked(w.kind, 1)
		w.result <- nil
		return true
	})
	if !g.unanswered && !slices.ContainsFunc(g.waiting, func(w waiting) bool { return w.kind != kindBlocking }) {
		g.bound = 0
	}
}

// giveTurnsLocked lets queries of kindInTurn wait for a place, as long as at most maxInTurn of them
// do so or are in flight.
func (g *gate) giveTurnsLocked() {
	if len(g.outOfTurn) == 0 {
		return
	}
	room := maxInTurn - g.inTurn
	for _, w := range g.waiting {
		if w.kind == kindInTurn {
			room--
		}
	}
	n := min(room, len(g.outOfTurn))
	g.waiting = append(g.waiting, g.outOfTurn[:n]...)
	g.outOfTurn = g.outOfTurn[n:]
}

func (g *gate) roomLocked(kind queryKind) bool {
	return g.used < g.limit && (kind == kindBlocking || g.bound == 0 || g.nonBlocking < g.bound)
}

// shorten returns how long a query in flight may block, at most wait, and whether that is longer
// than lastWait. view says that a view may answer the query.
func (g *gate) shorten(wait time.Duration, view bool) (shortened time.Duration, long bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	others, last := g.long, max(1, g.limit/32)
	if g.limit < g.most { // the agent may accept fewer still
		others, last = g.used-1, max(1, g.limit/16)
	}
	switch {
	case wait <= lastWait:
		return wait, false
	case others >= g.limit-last:
		return lastWait, false
	case !view && g.limit < g.most:
		wait = min(wait, reducedWait)
	}
	g.long++
	return wait, true
}

// recordContinued records that an agent, known by its multiplexed, continues a canceled query until
// at most a time. The agent counts the connection of that query.
func (g *gate) recordContinued(agent *atomic.Bool, until time.Time) {
	if agent.Load() || time.Until(until) <= 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.continued[agent] = append(g.continued[agent], until)
	g.resizeLocked(g.accepted)
}

// forgetContinuedLocked forgets the canceled queries that have ended.
func (g *gate) forgetContinuedLocked(now time.Time) {
	before := len(g.continued[g.multiplexed])
	for agent, all := range g.continued {
		g.continued[agent] = slices.DeleteFunc(all, func(until time.Time) bool { return !now.Before(until) })
	}
	if len(g.continued[g.multiplexed]) < before {
		g.resizeLocked(g.accepted)
	}
}

// setUnanswered says why the agent in use does not answer; nil: it does. The queries that wait fail
// with that error. Later ones are admitted in small numbers: they would take the connections of
// those that replace them. When it answers again, waiting queries are admitted as fast as it
// answers.
func (g *gate) setUnanswered(why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if (why != nil) == g.unanswered {
		return
	}
	g.unanswered = why != nil
	g.bound = minConnections
	if g.unanswered {
		g.failLocked(why)
	} else {
		g.bound += g.nonBlocking // these may take long
	}
	g.admitLocked()
}

// failLocked ends the wait of all queries with an error.
func (g *gate) failLocked(err error) {
	for _, w := range slices.Concat(g.waiting, g.outOfTurn) {
		w.result <- err
	}
	g.waiting, g.outOfTurn = nil, nil
}

// refused lowers the limit after an answer 429.
func (g *gate) refused() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if now.Sub(g.changed) < shrinkInterval {
		return
	}
	g.changed = now
	least := fewest
	if g.oversubscribed { // the queries that block stay, for minutes: others must not wait for them
		least += g.used - g.nonBlocking
	}
	g.resizeLocked(min(g.limit, max(least, min(g.limit, g.used+1)*3/4)))
}

// stillContinued returns how many canceled queries the agent in use continues.
func (g *gate) stillContinued() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetContinuedLocked(time.Now())
	return len(g.continued[g.multiplexed])
}

// growLocked raises the limit some time after the last 429.
func (g *gate) growLocked(now time.Time) {
	if g.accepted >= g.most || now.Sub(g.changed) < growInterval {
		return
	}
	g.changed = now
	g.resizeLocked(min(g.most, g.accepted+max(1, g.most/16)))
}

// use sets the agent in use. multiplexed says whether queries to it share connections; after it
// changes, call adapt.
func (g *gate) use(multiplexed *atomic.Bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.multiplexed = multiplexed
	g.resizeLocked(g.accepted) // each agent has its continued queries
	g.adaptLocked()
}

// adapt adapts the limit to the agent in use.
func (g *gate) adapt() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.adaptLocked()
}

func (g *gate) adaptLocked() {
	most := g.connections
	if g.multiplexed.Load() {
		most *= queriesPerConnection
	}
	if g.most != most {
		g.most = most
		g.resizeLocked(most)
	}
}

// total returns how many connections an agent may count for queries in flight and continued ones.
func (g *gate) total() int { return counted(g.connections) }

// counted returns how many connections an agent may count of a client that may have some number:
// three eighths more, for connections that the agent has yet to close, and at least 4 more, so
// that a client with one gets on. The rest of the agent's limit is for probes, for other clients,
// and for superfluous connections of net/http on a busy machine.
func counted(connections int) int { return connections + max(4, connections*3/8) }

func (g *gate) resizeLocked(accepted int) {
	limit := accepted
	if n := len(g.continued[g.multiplexed]); n > 0 {
		limit = min(limit, max(minConnections, g.total()-n))
	}
	g.accepted, g.limit = accepted, limit
	g.resized.Send()
	g.updateOversubscribedLocked()
	g.admitLocked()
}

// countLoop counts a loop until the caller calls end.
func (g *gate) countLoop() (end func()) {
	g.count(1)
	return func() { g.count(-1) }
}

func (g *gate) count(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.loops += n
	g.updateOversubscribedLocked()
}

// setLagging says whether the agent's views may be out of date. Then the servers answer each query
// that blocks, and they must not get one for each of thousands of loops of each replica, however
// many share a connection.
func (g *gate) setLagging(lagging bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lagging = lagging
	g.updateOversubscribedLocked()
}

// updateOversubscribedLocked decides whether there are more loops than queries that may block.
func (g *gate) updateOversubscribedLocked() {
	room := g.accepted
	if g.lagging {
		room = min(room, g.connections)
	}
	room -= room / 16 // the rest is for queries that do not block
	if oversubscribed := g.loops > room; oversubscribed != g.oversubscribed {
		g.oversubscribed = oversubscribed
		g.endLasting()
		g.lasting, g.endLasting = context.WithCancel(context.Background())
	}
}

// oversubscription returns whether there are more loops than queries that may block, and what ends
// when that changes.
func (g *gate) oversubscription() (oversubscribed bool, lasting context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.oversubscribed, g.lasting
}

// fewLoops reports whether each loop may have four queries in flight: the agent continues
// canceled queries, and may be slow because it is busy.
func (g *gate) fewLoops() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return 4*g.loops <= min(g.limit, defaultMaxWatches)
}
