package balancer

import "context"

// Await is [Pool.Pick] for a request that would rather wait than fail while the
// pool has no eligible peer. It returns as soon as there is one, or with Pick's
// last error when ctx ends, or at once with any error other than [ErrNoPeers]
// and [ErrNoEligible]. At most Limits.Pending requests wait; further ones get
// [ErrTooManyPending] at once.
func (p *Pool) Await(ctx context.Context, q *Query) (Token, error) {
	limit := p.snapshot.Load().terms.Pending
	defer p.pending.Add(-1)
	if p.pending.Add(1) > int64(limit) {
		return Token{}, p.refuse(LimitPending)
	}
	for {
		changed := p.Changed()
		t, err := p.Pick(q)
		if err != ErrNoPeers && err != ErrNoEligible {
			return t, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Token{}, err
		}
	}
}

// Pending returns how many requests wait for a peer.
func (p *Pool) Pending() int { return int(p.pending.Load()) }
