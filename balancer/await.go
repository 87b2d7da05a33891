package balancer

import (
	"context"
	"sync"

	"sluice/route/places"
)

// Await is pick, which calls [Pool.Pick], for a request that can wait while the pool has no
// eligible peer. It returns as soon as there is one, with pick's last error when ctx ends, and at
// once with any error other than [ErrNoPeers] and [ErrNoEligible], or if the pool is closed: it
// gets no more peers. At most Limits.Pending requests wait, and of one client at most as many as it
// leaves to others; further ones fail with [ErrTooManyPending].
func (p *Pool) Await(ctx context.Context, client places.Block, pick func() (Token, error)) (Token, error) {
	if !p.Admission.waiting.add(client, p.snapshot.Load().terms.Pending) {
		return Token{}, p.Admission.refuse(LimitPending, false)
	}
	defer p.Admission.waiting.remove(client)
	for {
		changed := p.Changed()
		t, err := pick()
		if err != ErrNoPeers && err != ErrNoEligible || p.isClosed() {
			return t, err
		}
		select {
		case <-changed:
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
	if !p.Admission.waiting.add(client, p.snapshot.Load().terms.Pending) {
		return Token{}, p.Admission.refuse(LimitPending, false)
	}
	defer p.Admission.waiting.remove(client)
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
	clients map[places.Block]int // that have some
}

// add counts a further request of a client, of at most that many. A client may have as many as it
// leaves to others: so whoever has some, there is room for one that has none. This is the dynamic
// threshold of Choudhury and Hahne (Dynamic Queue Length Thresholds, 1998) with α = 1.
// [places.Many] may have all. added: it is counted.
func (w *waiting) add(client places.Block, most int) (added bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	left := most - w.all
	if left <= 0 || client != places.Many && w.clients[client] >= left {
		return false
	}
	if w.clients == nil {
		w.clients = make(map[places.Block]int)
	}
	w.all++
	w.clients[client]++
	return true
}

// remove undoes add.
func (w *waiting) remove(client places.Block) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all--
	if w.clients[client]--; w.clients[client] == 0 {
		delete(w.clients, client)
	}
}

// count returns how many wait.
func (w *waiting) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all
}
