package balancer

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/route/places"
	"sluice/test/verify"
)

// onePlace returns a pool of n peers with one connection each, all in use.
func onePlace(t *testing.T, n int) (*Pool, []Token) {
	p := newTestPool(t, Options{Limits: Limits{PeerConnections: 1, Pending: 10}}, instances(n)...)
	return p, hold(t, p, n)
}

func TestConnectionsAreAwaitedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, held := onePlace(t, 2)
		const waiters = 6
		var mu sync.Mutex
		var served []int
		for i := range waiters {
			go func() {
				token, err := p.AwaitConnection(t.Context(), places.Many, nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				served = append(served, i)
				mu.Unlock()
				time.Sleep(time.Second)
				token.Done(Outcome{})
			}()
			synctest.Wait() // until it waits
		}
		verify.Equal(t, p.Admission.Pending(), waiters, "pending")
		held[0].Done(Outcome{})
		expectPick(t, p, nil, ErrConnectionsSaturated) // others wait
		synctest.Wait()
		verify.Slices(t, served, []int{0}, "have a connection")
		start := time.Now()
		held[1].Done(Outcome{})
		for range 2 {
			pass(time.Second)
		}
		verify.Slices(t, served, []int{0, 1, 2, 3, 4, 5}, "served after 2s")
		verify.Equal(t, time.Since(start), 2*time.Second, "time")
		pass(time.Second)
		expectPick(t, p, nil, nil)
	})
}

// A request that waits for a connection to a peer of the fallback, and looks again whenever the
// pool changes, has gone there once: when it has got one.
func TestWaitForTheFallbackIsCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Options{Groups: byTag("canary"), Limits: Limits{PeerConnections: 1, Pending: 1}}
		p := newTestPool(t, o, instances(2)...)
		held := hold(t, p, 2)
		q := in(p, "canary")
		q.Fallback = p.Group(RestGroup).ID()
		go func() {
			token, err := p.AwaitConnection(t.Context(), places.Many, q)
			verify.Succeeds(t, err)
			token.Done(Outcome{})
		}()
		for down := range 3 {
			synctest.Wait()
			setReason(p, held[0].Peer.ID, ReasonActive, down != 1, "")
		}
		synctest.Wait()
		verify.Equal(t, p.Group("canary").Fallbacks(), 0, "fallbacks of a request that waits")
		held[1].Done(Outcome{})
		synctest.Wait()
		verify.Equal(t, p.Group("canary").Fallbacks(), 1, "fallbacks")
	})
}

func TestWaitForAConnectionEnds(t *testing.T) {
	allGet := func(r Reason) func(*Pool, []Token) {
		return func(p *Pool, held []Token) {
			for _, token := range held {
				setReason(p, token.Peer.ID, r, true, "")
			}
		}
	}
	for _, test := range []struct {
		name   string
		end    func(*Pool, []Token)
		after  time.Duration
		err    error
		behind error // of the request that came after
	}{
		{"when its time is over", func(*Pool, []Token) {}, 5 * time.Second, ErrConnectionsSaturated, ErrConnectionsSaturated},
		{"when the peers are drained", allGet(ReasonDrain), time.Second, ErrNoEligible, ErrNoEligible},
		{"when checks fail", allGet(ReasonActive), time.Second, ErrNoEligible, ErrNoEligible},
		{"when a peer joins", func(p *Pool, _ []Token) { p.Apply(instances(3)) }, time.Second, nil, ErrConnectionsSaturated},
		{"when more are allowed", func(p *Pool, _ []Token) { p.Reconfigure(complete(Options{Limits: Limits{PeerConnections: 2}})) }, time.Second, nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, held := onePlace(t, 2)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				time.AfterFunc(time.Second, func() { test.end(p, held) })
				start := time.Now()
				behind := make(chan error)
				time.AfterFunc(time.Millisecond, func() {
					_, err := p.AwaitConnection(ctx, places.Many, nil)
					behind <- err
				})
				_, err := p.AwaitConnection(ctx, places.Many, nil)
				verify.Equal(t, err, test.err, "the error")
				verify.Equal(t, time.Since(start), test.after, "the time")
				verify.Equal(t, <-behind, test.behind, "for the one behind")
				verify.Equal(t, p.Admission.Pending(), 0, "pending")
			})
		})
	}
}

// Who comes while no peer is there waits for one, and not behind those that wait for a connection
// and have not learned it yet.
func TestNobodyQueuesWhereNoPeerIs(t *testing.T) {
	p, held := onePlace(t, 1)
	var q Query
	p.queue.join(q.line(), places.Many, make(chan struct{}, 1))
	expectPick(t, p, &q, ErrConnectionsSaturated)
	setReason(p, held[0].Peer.ID, ReasonDrain, true, "")
	expectPick(t, p, &q, ErrNoEligible)
}

// Nor does a retry for which none is left: with a connection it had nobody to pick, neither in its
// group nor in the fallback.
func TestNobodyQueuesWhereNoOtherPeerIs(t *testing.T) {
	o := Options{Limits: Limits{PeerConnections: 1}, Groups: []GroupSelector{{Name: "canary"}}}
	p := newTestPool(t, o, instances(1)...)
	held := hold(t, p, 1)
	q := Query{Group: p.Group("canary").ID(), Fallback: p.Group("rest").ID()}
	p.queue.join(q.line(), places.Many, make(chan struct{}, 1))
	expectPick(t, p, &q, ErrConnectionsSaturated)
	q.Tried.Add(held[0].Peer)
	expectPick(t, p, &q, ErrNoPeers)
}

// A retry that goes to the fallback does not queue behind those that wait for a peer of its group.
func TestNobodyQueuesForThePeersOfOthers(t *testing.T) {
	p := newTestPool(t, Options{Limits: Limits{PeerConnections: 1}, Groups: byTag("canary")}, withTags("canary", "")...)
	q := Query{Group: p.Group("canary").ID(), Fallback: p.Group("rest").ID()}
	held := mustPick(t, p, &q)
	p.queue.join(q.line(), places.Many, make(chan struct{}, 1))
	expectPick(t, p, &q, ErrConnectionsSaturated)
	q.Tried.Add(held.Peer)
	verify.That(t, picked(t, p, &q) != held.Peer, "the peer that was tried")
	held.Done(Outcome{})
}

func TestRequestsThatWaitForAConnectionAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{Limits: Limits{PeerConnections: 1, Pending: 1}}, instances(1)...)
		held := hold(t, p, 1)
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.AwaitConnection(t.Context(), places.Many, nil)
		}()
		synctest.Wait()
		_, err := p.AwaitConnection(t.Context(), places.Many, nil)
		verify.Equal(t, err, ErrTooManyPending, "AwaitConnection")
		held[0].Done(Outcome{})
		<-done
		// A waiting request is not refused when it becomes the first.
		verify.Equal(t, p.Admission.Refusals(), [NumLimits]uint64{LimitPending: 1}, "refusals")
	})
}

// A retry that waits for the peer that it has not tried does not hold up requests for which the
// other one has a connection.
func TestRetriesWaitInALineOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, held := onePlace(t, 2)
		retry := new(Query)
		retry.Tried.Add(held[0].Peer)
		held[0].Done(Outcome{Class: OutcomeReset})
		await := func(q *Query) <-chan Token {
			got := make(chan Token)
			go func() {
				token, err := p.AwaitConnection(t.Context(), places.Many, q)
				verify.That(t, err == nil, "AwaitConnection: %v", err)
				got <- token
			}()
			synctest.Wait()
			return got
		}
		retried := await(retry)
		waited := (<-await(nil))
		verify.Equal(t, waited.Peer, held[0].Peer, "the peer of one that may wait")
		waited.Done(Outcome{})
		picked := mustPick(t, p, nil)
		verify.Equal(t, picked.Peer, held[0].Peer, "the peer of one that does not wait")

		expectPick(t, p, retry, ErrConnectionsSaturated)
		behind := await(nil)
		expectPick(t, p, retry, ErrConnectionsSaturated)
		held[1].Done(Outcome{})
		for range 2 {
			select {
			case token := <-retried:
				verify.Equal(t, token.Peer, held[1].Peer, "the peer of the retry")
				token.Done(Outcome{})
			case token := <-behind:
				token.Done(Outcome{})
			}
		}
		picked.Done(Outcome{})
		verify.That(t, p.queue.length.Load() == 0 && len(p.queue.lines) == 0, "still wait: %v", p.queue.lines)
	})
}

// A retry that does not wait does not go before requests that do.
func TestNoRetryGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, held := onePlace(t, 2)
		retry := new(Query)
		retry.Tried.Add(held[0].Peer)
		ctx, cancel := context.WithCancel(t.Context())
		waited := make(chan struct{})
		go func() {
			defer close(waited)
			_, err := p.AwaitConnection(ctx, places.Many, nil)
			verify.That(t, err == ErrConnectionsSaturated, "AwaitConnection: %v", err)
		}()
		synctest.Wait()
		// A release would wake the one that waits.
		held[1].Peer.load.Add(-1)
		expectPick(t, p, retry, ErrConnectionsSaturated)
		held[1].Peer.load.Add(1)
		cancel()
		<-waited
	})
}
