package balancer

import (
	"context"
	"slices"
	"sync"

	"sluice/route/places"
)

// Await is pick, which calls [Pool.Pick], for a request that can wait while the pool has no
// eligible peer. It returns as soon as there is one, with pick's last error when ctx ends, and at
// once with any error other than [ErrNoPeers] and [ErrNoEligible], or if the pool is closed: it
// gets no more peers. At most Limits.Pending requests wait. A further one fails with
// [ErrTooManyPending], or the latest one of the client that has the most.
func (p *Pool) Await(ctx context.Context, client places.Block, pick func() (Token, error)) (Token, error) {
	over := p.Admission.waiting.add(client, p.snapshot.Load().terms.Pending)
	if over == nil {
		return Token{}, p.Admission.refuse(LimitPending, false)
	}
	defer p.Admission.waiting.remove(client, over)
	for {
		changed := p.Changed()
		t, err := pick()
		if err != ErrNoPeers && err != ErrNoEligible || p.isClosed() {
			return t, err
		}
		select {
		case <-changed:
		case <-over:
			return Token{}, p.Admission.refuse(LimitPending, false)
		case <-ctx.Done():
			return Token{}, err
		}
	}
}

func (p *Pool) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// AwaitConnection is [Pool.Pick] for a request that would rather wait than fail
// while every connection is in use (Limits.PeerConnections). The clients that wait get the
// connections that become free in turn, each in the order in which its requests came, and before
// those that do not wait; each group has its own order, and others for the retries with an equal
// Query.Tried. It returns with [ErrConnectionsSaturated] when ctx ends, and at once with any other
// error. Limits.Pending bounds the waiting requests, as in Await.
func (p *Pool) AwaitConnection(ctx context.Context, client places.Block, q *Query) (Token, error) {
	over := p.Admission.waiting.add(client, p.snapshot.Load().terms.Pending)
	if over == nil {
		return Token{}, p.Admission.refuse(LimitPending, false)
	}
	defer p.Admission.waiting.remove(client, over)
	query := Query{first: true}
	if q != nil {
		query = *q
		query.first = true
	}
	ready := make(chan struct{}, 1)
	line := query.line()
	p.queue.join(line, client, ready)
	defer p.queue.leave(line, ready)
	for {
		changed := p.Changed()
		if p.queue.isFirst(line, ready) {
			if t, err := p.Pick(&query); err != ErrConnectionsSaturated {
				return t, err
			}
		}
		select {
		case <-ready:
		case <-changed:
		case <-over:
			return Token{}, p.Admission.refuse(LimitPending, false)
		case <-ctx.Done():
			return Token{}, ErrConnectionsSaturated
		}
	}
}

// waiting counts the requests that wait for a peer or a connection, and for whom they wait. The
// zero value is empty. It is safe for concurrent use.
type waiting struct {
	mu sync.Mutex
	// mu guards the fields below.
	all     int
	clients map[places.Block][]chan struct{} // that have some, in the order in which they came
}

// add counts a further request of a client, of at most that many. over is closed when the request
// has to make room for one of another client; nil: there is no room for it.
func (w *waiting) add(client places.Block, most int) (over chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all >= most && !w.makeRoomLocked(client) {
		return nil
	}
	if w.clients == nil {
		w.clients = make(map[places.Block][]chan struct{})
	}
	over = make(chan struct{})
	w.clients[client] = append(w.clients[client], over)
	w.all++
	return over
}

// makeRoomLocked ends the latest wait of the client that has most, if another one would still have
// fewer with one more. So a client alone may have all places, and leaves each other one as many as
// it has itself: the longest queue is dropped from, as Suter and others do with buffers (Design
// Considerations for Supporting TCP with Per-flow Queueing, 1998). Clients that nobody tells apart
// keep theirs, and count as ones that have none.
func (w *waiting) makeRoomLocked(client places.Block) bool {
	most := 1
	if client != places.Many {
		most += len(w.clients[client])
	}
	var longest places.Block
	for other, waits := range w.clients {
		if other != places.Many && len(waits) > most {
			longest, most = other, len(waits)
		}
	}
	if longest == places.Many {
		return false
	}
	w.endLocked(longest, most-1)
	return true
}

// remove undoes add, unless the request had to make room.
func (w *waiting) remove(client places.Block, over chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.clients[client], over); i >= 0 {
		w.endLocked(client, i)
	}
}

// endLocked ends the i-th wait of a client.
func (w *waiting) endLocked(client places.Block, i int) {
	waits := w.clients[client]
	close(waits[i])
	w.all--
	if w.clients[client] = slices.Delete(waits, i, i+1); len(waits) == 1 {
		delete(w.clients, client)
	}
}

// count returns how many wait.
func (w *waiting) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all
}
