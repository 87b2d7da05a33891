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
	lines map[GroupID]line // that are not empty
}

type line []chan<- struct{}

// join puts a request at the end of a line. A connection that becomes free after join
// wakes the first of each line.
func (q *queue) join(group GroupID, w chan<- struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.lines == nil {
		q.lines = make(map[GroupID]line)
	}
	q.lines[group] = append(q.lines[group], w)
	q.length.Add(1)
}

// leave takes a request out. The one that is the first then tries to pick, since
// several connections may have become free.
func (q *queue) leave(group GroupID, w chan<- struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.length.Add(-1)
	l := q.lines[group]
	i := slices.Index(l, w)
	if l = slices.Delete(l, i, i+1); len(l) == 0 {
		delete(q.lines, group)
		return
	}
	q.lines[group] = l
	if i == 0 {
		l.wake()
	}
}

// isFirst reports whether no request of the line came before this one.
func (q *queue) isFirst(group GroupID, w chan<- struct{}) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lines[group][0] == w
}

// waitsFor reports whether a request of the line waits.
func (q *queue) waitsFor(group GroupID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.lines[group]) > 0
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
	case l[0] <- struct{}{}:
	default: // it has yet to try
	}
}
