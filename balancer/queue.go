package balancer

import (
	"slices"
	"sync"
	"sync/atomic"

	"sluice/route/places"
)

// A queue is the requests that wait for a connection: a line for each group, and one
// for the whole pool, in which clients take turns. Retries have lines of their own, by the
// peers that had the request: what one of them waits for may be free for another. A request is
// known by a channel with room for one value, and gets one when it should try to pick. The zero
// value is empty.
type queue struct {
	length atomic.Int64 // of all lines
	mu     sync.Mutex
	// mu guards the field below.
	lines map[lineID]line // that are not empty
}

type lineID struct {
	group GroupID
	tried TriedSet
}

// line returns where a request waits.
func (q *Query) line() lineID { return lineID{q.Group, q.Tried} }

type line []waiter

type waiter struct {
	client places.Block
	round  uint64 // of turns; the first of a line has the lowest
	ready  chan<- struct{}
}

// turn returns the round in which a new request of a client has its turn: that of the first, or if
// the client has requests in the line the one after its last. Who knows clients only as
// [places.Many] has many of them: each has a turn of its own.
func (l line) turn(client places.Block) (round uint64) {
	if len(l) > 0 {
		round = l[0].round
	}
	for _, w := range l {
		if w.client == client && client != places.Many {
			round = w.round + 1
		}
	}
	return round
}

// join puts a request of a client in a line: behind those that have their turn before it, or with
// it. A connection that becomes free after join wakes the first of each line.
func (q *queue) join(id lineID, client places.Block, w chan<- struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.lines == nil {
		q.lines = make(map[lineID]line)
	}
	l := q.lines[id]
	round := l.turn(client)
	behind := len(l)
	for behind > 0 && l[behind-1].round > round {
		behind--
	}
	q.lines[id] = slices.Insert(l, behind, waiter{client, round, w})
	q.length.Add(1)
}

// leave takes a request out. The one that is the first then tries to pick, since
// several connections may have become free.
func (q *queue) leave(id lineID, w chan<- struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.length.Add(-1)
	l := q.lines[id]
	i := slices.IndexFunc(l, func(other waiter) bool { return other.ready == w })
	if l = slices.Delete(l, i, i+1); len(l) == 0 {
		delete(q.lines, id)
		return
	}
	q.lines[id] = l
	if i == 0 {
		l.wake()
	}
}

// isFirst reports whether no request of the line came before this one.
func (q *queue) isFirst(id lineID, w chan<- struct{}) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lines[id][0].ready == w
}

// goFirst reports whether requests wait before which one that does not wait must not go: those of
// its line and, if it may pick in its group, those of that.
func (q *queue) goFirst(id lineID, inGroup bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.lines[id]) > 0 || inGroup && len(q.lines[lineID{group: id.group}]) > 0
}

// mustWait reports whether requests wait that get a connection before this one does, if a peer is
// there for it at all.
func (q *queue) mustWait(s *Snapshot, query *Query) bool {
	inGroup := *query
	inGroup.Fallback = 0
	return !query.first && s.terms.perPeerKind == LimitPeerConnections && s.Another(query, nil) && q.goFirst(query.line(), s.Another(&inGroup, nil))
}

// released is called when a connection may have become free.
func (q *queue) released() {
	if q.length.Load() > 0 {
		q.wake()
	}
}

// wake makes the first request of each line try to pick.
func (q *queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range q.lines {
		l.wake()
	}
}

// wake makes the first request of l, which is not empty, try to pick.
func (l line) wake() {
	select {
	case l[0].ready <- struct{}{}:
	default: // it has yet to try
	}
}
