package consul

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// multiplexFactor is how many queries share a connection of HTTP/2. Consul's
	// server accepts 250 streams on one; net/http then opens another.
	multiplexFactor = 100

	// leastConnections is what 429 answers do not reduce the limit below, and how
	// many queries that do not block may be in flight to an agent that does not answer. An overview and one query
	// beside it fit.
	leastConnections = 8

	// reliefAfter is how long after a 429 the limit grows again by a sixteenth,
	// and then after each further such time. The connections are shared with
	// every other client at this address, so nothing else tells that there is room.
	reliefAfter = 30 * time.Second
	// shrinkEvery bounds how often 429 answers lower the limit: those of queries
	// that were in flight together say the same thing.
	shrinkEvery = time.Second
)

// gate bounds the queries in flight, and decides whether every watch may have
// one of its own that blocks. It is safe for concurrent use.
type gate struct {
	mu sync.Mutex // guards the fields below

	most    int  // the limit without 429
	limit   int  // queries that may be in flight
	asking  int  // of them, those that do not block
	narrow  bool // the agent does not answer
	bound   int  // of asking, while that is so and until those who waited are through; 0: none
	used    int  // that are in flight
	waiting []waiting
	changed time.Time // when 429 last changed limit

	watches int             // sources that run
	crowded bool            // there are more than may block at a time
	lasting context.Context // ends, and is replaced, when crowded changes
	turn    context.CancelFunc
	resized chan struct{} // closed, and replaced, when limit changes
}

// waiting is a query that waits to be let in.
type waiting struct {
	turn   chan struct{}
	blocks bool
}

// newGate makes a gate for so many connections.
func newGate(connections int) *gate {
	g := &gate{most: connections, limit: connections, resized: make(chan struct{})}
	g.lasting, g.turn = context.WithCancel(context.Background())
	return g
}

// enter waits until one more query may be in flight, which blocks in Consul or
// not. The caller calls leave after it.
func (g *gate) enter(ctx context.Context, blocks bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	g.mu.Lock()
	g.relieveLocked(time.Now())
	if g.roomLocked(blocks) {
		g.countLocked(blocks, 1)
		g.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	g.waiting = append(g.waiting, waiting{turn, blocks})
	g.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		g.forsake(turn, blocks)
		return context.Cause(ctx)
	}
}

// tryEnter is enter for a query that does not block nor wait here. It reports
// whether the query was let in; if not, leave is not called.
func (g *gate) tryEnter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	room := g.roomLocked(false)
	if room {
		g.countLocked(false, 1)
	}
	return room
}

// forsake gives up a place in the queue, or the turn that came meanwhile.
func (g *gate) forsake(turn chan struct{}, blocks bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := len(g.waiting)
	g.waiting = slices.DeleteFunc(g.waiting, func(w waiting) bool { return w.turn == turn })
	if len(g.waiting) == before {
		g.countLocked(blocks, -1)
	}
	g.admitLocked()
}

// leave ends what enter began.
func (g *gate) leave(blocks bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.countLocked(blocks, -1)
	g.admitLocked()
}

func (g *gate) countLocked(blocks bool, n int) {
	g.used += n
	if !blocks {
		g.asking += n
	}
}

// admitLocked lets in those who wait and may, first come, first served.
func (g *gate) admitLocked() {
	g.waiting = slices.DeleteFunc(g.waiting, func(w waiting) bool {
		if !g.roomLocked(w.blocks) {
			return false
		}
		g.countLocked(w.blocks, 1)
		close(w.turn)
		return true
	})
	if !g.narrow && !slices.ContainsFunc(g.waiting, func(w waiting) bool { return !w.blocks }) {
		g.bound = 0
	}
}

func (g *gate) roomLocked(blocks bool) bool {
	return g.used < g.limit && (blocks || g.bound == 0 || g.asking < g.bound)
}

// setNarrow says whether the agent is one that does not answer. What is sent to
// it waits there, and then takes connections beside what is asked anew. Those who
// wait here are let in as fast as it answers, when it does again.
func (g *gate) setNarrow(narrow bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if narrow == g.narrow {
		return
	}
	if g.bound = leastConnections; !narrow {
		g.bound += g.asking // these may wait for long
	}
	g.narrow = narrow
	g.admitLocked()
}

// refused takes note of an answer 429: fewer queries from now on.
func (g *gate) refused() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if now.Sub(g.changed) < shrinkEvery {
		return
	}
	g.changed = now
	g.resizeLocked(min(g.limit, max(leastConnections, min(g.limit, g.used+1)*3/4)))
}

// shortage returns how far the limit is below what it may be.
func (g *gate) shortage() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.most - g.limit
}

// spare lowers the limit by n, as an answer 429 does.
func (g *gate) spare(n int) {
	if n <= 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changed = time.Now()
	g.resizeLocked(min(g.limit, max(leastConnections, g.limit-n)))
}

// relieveLocked raises the limit some time after the last 429.
func (g *gate) relieveLocked(now time.Time) {
	if g.limit >= g.most || now.Sub(g.changed) < reliefAfter {
		return
	}
	g.changed = now
	g.resizeLocked(min(g.most, g.limit+max(1, g.most/16)))
}

// multiplexed takes note that queries share connections.
func (g *gate) multiplexed(connections int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if most := connections * multiplexFactor; g.most < most {
		g.most = most
		g.resizeLocked(most)
	}
}

func (g *gate) resizeLocked(limit int) {
	g.limit = limit
	close(g.resized)
	g.resized = make(chan struct{})
	g.judgeLocked()
	g.admitLocked()
}

// sized returns a channel that is closed when the limit changes.
func (g *gate) sized() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.resized
}

// join counts one more watch; the caller calls the result when it ends.
func (g *gate) join() (end func()) {
	g.count(1)
	return func() { g.count(-1) }
}

func (g *gate) count(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watches += n
	g.judgeLocked()
}

// judgeLocked decides anew whether there are too many watches. It takes
// clearly fewer ones to end that than to begin it.
func (g *gate) judgeLocked() {
	room := g.limit - g.limit/16 // the rest is for queries that do not block
	if g.crowded {
		room = g.limit * 3 / 4
	}
	if crowded := g.watches > room; crowded != g.crowded {
		g.crowded = crowded
		g.turn()
		g.lasting, g.turn = context.WithCancel(context.Background())
	}
}

// crowd reports whether there are more watches than queries that may block, and
// returns a context that ends when this changes.
func (g *gate) crowd() (crowded bool, lasting context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.crowded, g.lasting
}

// roomy reports whether watches are so few that each may have four queries in
// flight. Many would keep an agent busy that is slow for having much to do.
func (g *gate) roomy() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return 4*g.watches <= min(g.limit, defaultMaxWatches)
}

// size returns how many queries may be in flight, and how many watches run.
func (g *gate) size() (limit, watches int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limit, g.watches
}
