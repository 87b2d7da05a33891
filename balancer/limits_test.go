package balancer

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/route/places"
	"sluice/test/verify"
)

// hold picks n times.
func hold(t *testing.T, p *Pool, n int) []Token {
	t.Helper()
	var held []Token
	for range n {
		held = append(held, mustPick(t, p, nil))
	}
	return held
}

func pick(p *Pool, q *Query) func() (Token, error) {
	return func() (Token, error) { return p.Pick(q) }
}

func expectPick(t *testing.T, p *Pool, q *Query, want error) {
	t.Helper()
	token, err := p.Pick(q)
	verify.Equal(t, err, want, "Pick")
	if err == nil {
		token.Done(Outcome{})
	}
}

// A pick that fails for another reason does not count.
func TestARefusedPickDoesNotCount(t *testing.T) {
	p := newTestPool(t, Options{Limits: Limits{Requests: 2, Retries: 1, PeerRequests: 1}, RetryBudget: &RetryBudget{}})
	expectPick(t, p, nil, ErrNoPeers)
	p.Apply(instances(1))
	token := mustPick(t, p, nil)
	expectPick(t, p, nil, ErrPeersSaturated)
	q := triedOne()
	expectPick(t, p, &q, ErrRetryBudget)
	p.Admission.budget.balance.Store(retryPrice)
	q.Tried.Add(token.Peer)
	for range 3 { // with a budget for one
		expectPick(t, p, &q, ErrAllTried)
	}
	setReason(p, token.Peer.ID, ReasonDrain, true, "")
	expectPick(t, p, nil, ErrNoEligible)
	token.Done(Outcome{})
	verify.That(t, p.Admission.inflight.Load() == 0 && p.Admission.retries.Load() == 0, "%d in flight, %d retries; want none", p.Admission.inflight.Load(), p.Admission.retries.Load())
}

func TestAFullPeerIsNotPicked(t *testing.T) {
	for _, policy := range Policies() {
		for i, n := range []int{1, 2, 3, 20, 100} {
			limits, full := Limits{PeerRequests: 3, PeerConnections: 4}, ErrPeersSaturated
			if i%2 == 1 {
				limits, full = Limits{PeerRequests: 4, PeerConnections: 3}, ErrConnectionsSaturated
			}
			set := instances(n)
			set[0].Weight = 1000
			p := newTestPool(t, Options{Policy: policy, Limits: limits}, set...)
			held := hold(t, p, 3*n) // every free place is used
			for _, peer := range p.Snapshot().All {
				verify.Equal(t, peer.Inflight(), 3, "%s: in flight on %v", policy, peer)
			}
			expectPick(t, p, nil, full)
			held[0].Done(Outcome{})
			again := mustPick(t, p, nil)
			verify.That(t, again.Peer == held[0].Peer, "%s: picked %v, but %v is the one with a place", policy, again.Peer, held[0].Peer)
			if n > 1 { // the only free place is on a tried peer
				again.Done(Outcome{})
				var q Query
				q.Tried.Add(again.Peer)
				expectPick(t, p, &q, full)
			}
		}
	}
}

// The requests that a full peer does not get are spread over all others, not only over the
// next one.
func TestLoadOfAFullPeerIsSpread(t *testing.T) {
	p := newTestPool(t, Options{Policy: PolicyRoundRobin, Limits: Limits{PeerRequests: 1}}, instances(5)...)
	stuck := mustPick(t, p, nil)
	requests(t, p, 40000)
	for _, peer := range p.Snapshot().All {
		got := peer.Requests()
		verify.That(t, (peer != stuck.Peer || got == 0) && (peer == stuck.Peer || got >= 9000 && got <= 11000), "%v: %d requests; want about 10000 at each but the full one", peer, got)
	}
}

// With concurrent requests, no limit is exceeded and no place is lost.
func TestLimitsUnderConcurrency(t *testing.T) {
	limits := Limits{Requests: 7, PeerRequests: 3, Retries: 2}
	p := newTestPool(t, Options{Limits: limits, RetryBudget: ampleRetries}, instances(4)...)
	var inflight, retries atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		random := generator(t)
		all.Go(func() {
			for range 20000 {
				var q Query
				retry := random.IntN(3) == 0
				if retry {
					q = triedOne()
				}
				token, err := p.Pick(&q)
				if err != nil {
					continue
				}
				n := inflight.Add(1)
				verify.That(t, n <= int64(limits.Requests), "%d in flight", n)
				if retry && retries.Add(1) > int64(limits.Retries) {
					t.Errorf("%d retries in flight", retries.Load())
				}
				if retry {
					retries.Add(-1)
				}
				inflight.Add(-1)
				token.Done(Outcome{})
			}
		})
	}
	all.Wait()
	verify.That(t, p.Admission.inflight.Load() == 0 && p.Admission.retries.Load() == 0, "%d in flight, %d retries; want none", p.Admission.inflight.Load(), p.Admission.retries.Load())
	q := triedOne()
	hold(t, p, limits.Requests-limits.Retries)
	for range limits.Retries {
		expectPick(t, p, &q, nil)
		mustPick(t, p, &q)
	}
	expectPick(t, p, nil, ErrSaturated)
	p = newTestPool(t, Options{Limits: Limits{Retries: 1}}, instances(2)...)
	mustPick(t, p, &q)
	expectPick(t, p, &q, ErrTooManyRetries)
	expectPick(t, p, nil, nil) // a first attempt is not a retry
}

func TestAwaitWaitsForAFirstPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{})
		time.AfterFunc(3*time.Second, func() { p.Apply(instances(1)) })
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		token, err := p.Await(ctx, places.Many, pick(p, nil))
		verify.That(t, err == nil && time.Since(start) == 3*time.Second,
			"%v after %v, want a peer after 3s", err, time.Since(start))
		token.Done(Outcome{})

		// Await also waits for an unhealthy pool, and not longer than allowed.
		setReason(p, token.Peer.ID, ReasonActive, true, "")
		start = time.Now()
		ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err = p.Await(ctx, places.Many, pick(p, nil))
		verify.That(t, err == ErrNoEligible && time.Since(start) == 5*time.Second,
			"%v after %v, want %v after 5s", err, time.Since(start), ErrNoEligible)
		verify.Equal(t, p.Admission.Pending(), 0, "pending")
	})
}
