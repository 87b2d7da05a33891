package balancer

import "context"

// Await is pick, which calls [Pool.Pick], for a request that can wait while the pool has no
// eligible peer. It returns as soon as there is one, with pick's last error when ctx ends, and at
// once with any error other than [ErrNoPeers] and [ErrNoEligible], or if the pool is closed: it
// gets no more peers. At most Limits.Pending requests wait; further ones fail with
// [ErrTooManyPending].
func (p *Pool) Await(ctx context.Context, pick func() (Token, error)) (Token, error) {
	defer p.Admission.pending.Add(-1)
	if p.Admission.pending.Add(1) > int64(p.snapshot.Load().terms.Pending) {
		return Token{}, p.Admission.refuse(LimitPending, false)
	}
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
// while every connection is in use (Limits.PeerConnections). Requests get the
// connections that become free in the order in which they came, and before those
// that do not wait; each group has its own order, and others for the retries with an equal
// Query.Tried. It returns with [ErrConnectionsSaturated] when ctx ends, and at once with any other
// error. Limits.Pending bounds the waiting requests, as in Await.
func (p *Pool) AwaitConnection(ctx context.Context, q *Query) (Token, error) {
	defer p.Admission.pending.Add(-1)
	if p.Admission.pending.Add(1) > int64(p.snapshot.Load().terms.Pending) {
		return Token{}, p.Admission.refuse(LimitPending, false)
	}
	query := Query{first: true}
	if q != nil {
		query = *q
		query.first = true
	}
	ready := make(chan struct{}, 1)
	line := query.line()
	p.queue.join(line, ready)
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
