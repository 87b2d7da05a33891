package balancer

import (
	"slices"
	"sync"
	"sync/atomic"
)

// A queue is the requests that wait for a connection: a line for each group, and one
// for the whole pool, in the order in which they came. A request is known by a channel
// with room for one value, and gets one when it should try to pick. The zero value is
// empty.
type queue struct {
	length atomic.Int64 // of all lines
	mu     sync.Mutex
	// mu guards the field below.
	lines []line // the lines that were ever used
}

type line struct {
	group   GroupID
	waiters []chan<- struct{}
}

func (q *queue) lineLocked(group GroupID) *line {
	i := slices.IndexFunc(q.lines, func(l line) bool { return l.group == group })
	if i < 0 {
		i = len(q.lines)
		q.lines = append(q.lines, line{group: group})
	}
	return &q.lines[i]
}

// join puts a request at the end of a line. A connection that becomes free after join
// wakes the first of each line.
func (q *queue) join(group GroupID, w chan<- struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lineLocked(group)
	l.waiters = append(l.waiters, w)
	q.length.Add(1)
}

// leave takes a request out. The one that is the first then tries to pick, since
// several connections may have become free.
func (q *queue) leave(group GroupID, w chan<- struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lineLocked(group)
	i := slices.Index(l.waiters, w)
	l.waiters = slices.Delete(l.waiters, i, i+1)
	q.length.Add(-1)
	if i == 0 {
		l.wake()
	}
}

// isFirst reports whether no request of the line came before this one.
func (q *queue) isFirst(group GroupID, w chan<- struct{}) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lineLocked(group).waiters[0] == w
}

// waitsFor reports whether a request of the line waits.
func (q *queue) waitsFor(group GroupID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.lineLocked(group).waiters) > 0
}

// wake makes the first request of each line try to pick.
func (q *queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.lines {
		q.lines[i].wake()
	}
}

func (l *line) wake() {
	if len(l.waiters) == 0 {
		return
	}
	select {
	case l.waiters[0] <- struct{}{}:
	default: // it has yet to try
	}
}
