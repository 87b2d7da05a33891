package balancer

import (
	"slices"
	"sync"
	"sync/atomic"
)

// A queue is the requests that wait for a connection, in the order in which they
// came. Each is known by a channel with room for one value, and gets one when it
// should try to pick. The zero value is empty.
type queue struct {
	length atomic.Int64
	mu     sync.Mutex
	// mu guards the field below.
	waiters []chan<- struct{}
}

// join puts a request at the end. A connection that becomes free after join
// wakes the first one.
func (q *queue) join(w chan<- struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiters = append(q.waiters, w)
	q.length.Store(int64(len(q.waiters)))
}

// leave takes a request out. The one that is the first then tries to pick, since
// several connections may have become free.
func (q *queue) leave(w chan<- struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiters, w)
	q.waiters = slices.Delete(q.waiters, i, i+1)
	q.length.Store(int64(len(q.waiters)))
	if i == 0 {
		q.wakeLocked()
	}
}

// isFirst reports whether no request came before this one.
func (q *queue) isFirst(w chan<- struct{}) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiters[0] == w
}

// wake makes the first request try to pick.
func (q *queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wakeLocked()
}

func (q *queue) wakeLocked() {
	if len(q.waiters) == 0 {
		return
	}
	select {
	case q.waiters[0] <- struct{}{}:
	default: // it has yet to try
	}
}
