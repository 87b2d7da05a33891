package consul

import (
	"context"
	"sync"
	"time"
)

const (
	// multiplexFactor is how many queries share a connection of HTTP/2. Consul's
	// server accepts 250 streams on one; net/http then opens another.
	multiplexFactor = 100

	// leastConnections is what 429 answers do not reduce the limit below, and what
	// may be in flight to an agent that does not answer. An overview and one query
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
	narrow  bool // no more than leastConnections of them
	used    int  // that are in flight
	waiting []chan struct{}
	changed time.Time // when 429 last changed limit

	watches int             // sources that run
	crowded bool            // there are more than may block at a time
	lasting context.Context // ends, and is replaced, when crowded changes
	turn    context.CancelFunc
	resized chan struct{} // closed, and replaced, when limit changes
}

// newGate makes a gate for so many connections.
func newGate(connections int) *gate {
	g := &gate{most: connections, limit: connections, resized: make(chan struct{})}
	g.lasting, g.turn = context.WithCancel(context.Background())
	return g
}

// enter waits until one more query may be in flight. The caller calls leave
// after it.
func (g *gate) enter(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	g.mu.Lock()
	g.relieveLocked(time.Now())
	if g.roomLocked() && len(g.waiting) == 0 {
		g.used++
		g.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	g.waiting = append(g.waiting, turn)
	g.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		g.forsake(turn)
		return context.Cause(ctx)
	}
}

// forsake gives up a place in the queue, or the turn that came meanwhile.
func (g *gate) forsake(turn chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for n, waiting := range g.waiting {
		if waiting == turn {
			g.waiting = append(g.waiting[:n], g.waiting[n+1:]...)
			return
		}
	}
	g.used--
	g.admitLocked()
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used--
	g.admitLocked()
}

// admitLocked lets in those who wait, first come, first served.
func (g *gate) admitLocked() {
	for g.roomLocked() && len(g.waiting) > 0 {
		close(g.waiting[0])
		g.waiting = g.waiting[1:]
		g.used++
	}
}

func (g *gate) roomLocked() bool {
	return g.used < g.limit && (!g.narrow || g.used < leastConnections)
}

// setNarrow says whether the agent is one that does not answer. What is sent to
// it waits there, and then takes connections beside what is asked anew.
func (g *gate) setNarrow(narrow bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
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

// roomy reports whether each watch could have four queries in flight.
func (g *gate) roomy() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return 4*g.watches <= g.limit
}

// size returns how many queries may be in flight, and how many watches run.
func (g *gate) size() (limit, watches int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limit, g.watches
}
