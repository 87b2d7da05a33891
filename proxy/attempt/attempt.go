// Package attempt sends a request to peers of a service until one answers. It
// knows no protocol: an [Exchange] carries out each try.
package attempt

import (
	"context"
	"time"

	"sluice/balancer"
	"sluice/observe/panics"
	"sluice/route"
	"sluice/route/places"
)

// An Exchange is one request and its response, in whatever protocol.
type Exchange interface {
	// Try sends the request to the token's peer and passes the response on. It calls
	// [Loop.Answered] or [Loop.Connected] instead of the token's methods, and does not call
	// Done. While it waits for the answer it may ask [Loop.Leave]. If that says so, it
	// returns [balancer.OutcomeSuperseded].
	Try(t balancer.Token) balancer.Outcome
	// Replayable reports whether the request can be sent again: there is time
	// left, nothing of it is lost, and the method allows it or no peer has seen
	// any of it.
	Replayable() bool
	// Started reports whether a byte of the response was sent to the client.
	Started() bool
	// Block returns the client whose share the request takes: of places to wait, and of retries.
	Block() places.Block
	// Waiting returns a context for a wait for a peer. It ends after timeout, or when
	// the client no longer waits for the response. The caller calls end after the wait.
	Waiting(timeout time.Duration) (ctx context.Context, end context.CancelFunc)
}

// MaxTries bounds the tries of a request, also the ones that did not reach a
// peer: a [balancer.TriedSet] remembers as many peers less one.
const MaxTries = 5

// A Loop is the tries of one request. The zero value is ready.
type Loop struct {
	Tries int // that have begun

	counted  int // tries that have ended, and count as one of Retry.Attempts
	service  *route.Service
	query    *balancer.Query
	exchange Exchange
	// token is of the present try, and next of the one after it, which Leave has picked. Each has
	// a peer until its outcome is reported.
	token, next balancer.Token
	answered    bool              // the peer of token has begun to answer
	left        balancer.TriedSet // peers that Leave has left, and that have not failed
	again       int               // tries of peers that may be tried again

	// How long the request may still wait for a peer, and for a connection to one.
	forPeer, forConnection time.Duration
}

// Run tries x on peers of the service's pool until one answers, and returns the outcome of the
// last try. err is why no peer could be picked for the next try; it comes without an outcome only
// where there was no try. It may be called again then.
//
// A try that does not reach a peer does not count as one of Retry.Attempts,
// unless Attempts is 1: it harms nobody, and several peers may be gone before the
// registry says so. Nor does one whose peer was left.
func (l *Loop) Run(service *route.Service, query *balancer.Query, x Exchange) (o balancer.Outcome, err error) {
	l.service, l.query, l.exchange = service, query, x
	l.forPeer, l.forConnection = service.WaitForPeer-query.Waited, service.ConnectionWait
	defer l.release() // if x panics
	l.token, err = l.pick()
	for err == nil {
		l.Tries++
		peer := l.token.Peer
		o = x.Try(l.token)
		l.query.Refused = false
		if l.done(&l.token, o); l.next.Peer != nil {
			l.left.Add(peer)
			l.token, l.next = l.next, balancer.Token{}
			continue
		}
		if o.Class != balancer.OutcomeConnectFailure || service.Retry.Attempts == 1 {
			l.counted++
		}
		if !retryable(o) || x.Started() || !x.Replayable() || !l.mayTry(l.counted) {
			return o, nil
		}
		query.Tried.Add(peer)
		query.Block, query.Resort = x.Block(), true
		l.token, err = l.pick()
	}
	return o, err
}

// MayRetry reports whether another try may follow the present one, as far as their number goes.
func (l *Loop) MayRetry() bool { return l.mayTry(l.counted + 1) }

// MayLeave reports whether Leave may find another peer. Only a request that may be sent twice
// leaves its peer.
func (l *Loop) MayLeave() bool { return l.mayTry(1) }

// mayTry reports whether there may be one more try, after so many that count. There is none without
// Run: a copy for a mirror has one try.
func (l *Loop) mayTry(counted int) bool {
	return l.service != nil && counted < l.service.Retry.Attempts && l.Tries < MaxTries
}

// Answered is [balancer.Token.Answered] of the present try.
func (l *Loop) Answered(o balancer.Outcome) {
	l.answered = true
	l.token.Answered(o)
}

// Connected is [balancer.Token.Connected] of the present try.
func (l *Loop) Connected(latency time.Duration) {
	l.answered = true
	l.token.Connected(latency)
}

// Leave picks another peer for a request that waits for one whose health checks fail: where that
// hangs, long before a timeout. left: there is one, and the try has to end. If not, Leave may be
// called again when changed is closed: when the pool has changed or, where the others are full,
// soon.
func (l *Loop) Leave() (changed <-chan struct{}, left bool) {
	changed = l.service.Pool.Changed()
	if !l.MayLeave() {
		return changed, false
	}
	l.query.Tried.Add(l.token.Peer)
	l.query.Block, l.query.Resort = l.exchange.Block(), false
	var err error
	l.next, err = l.pickNow()
	full := err != nil && err != balancer.ErrAllTried && !lacksPeer(err)
	l.query.Refused = l.query.Refused || full // that is counted once
	if full {
		return soon(), false
	}
	return changed, err == nil
}

// soon returns a channel that is closed after a moment: no change of the pool tells when a limit
// allows more.
func soon() <-chan struct{} {
	over := make(chan struct{})
	time.AfterFunc(250*time.Millisecond, func() {
		defer panics.Contain(panics.Exchange, nil)
		close(over)
	})
	return over
}

// done reports the outcome of t, which has a peer.
func (l *Loop) done(t *balancer.Token, o balancer.Outcome) {
	done := *t
	*t = balancer.Token{}
	o.Answered, l.answered = l.answered, false
	done.Done(o)
}

// release gives the tokens back that have no outcome. That is no failure of their peers.
func (l *Loop) release() {
	for _, t := range []*balancer.Token{&l.token, &l.next} {
		if t.Peer != nil {
			l.done(t, balancer.Outcome{Class: balancer.OutcomeLocal})
		}
	}
}

// retryable reports whether another peer may do better.
func retryable(o balancer.Outcome) bool {
	switch o.Class {
	case balancer.OutcomeConnectFailure, balancer.OutcomeTimeout, balancer.OutcomeReset, balancer.OutcomeStale, balancer.OutcomeLocal:
		return true
	}
	return false
}

// pick picks a peer. If there is none, or all connections are in use, it waits for one, for all
// tries together as long as the service allows: what it has waited for may be gone when it comes
// to it. err is why there is none.
func (l *Loop) pick() (t balancer.Token, err error) {
	pool := l.service.Pool
	for t, err = l.pickNow(); err != nil; {
		var none time.Duration
		left := &none
		switch {
		case lacksPeer(err):
			left = &l.forPeer
		case err == balancer.ErrConnectionsSaturated:
			left = &l.forConnection
		}
		timeout := *left
		if timeout <= 0 {
			return t, err
		}
		start := time.Now()
		ctx, end := l.exchange.Waiting(timeout)
		if left == &l.forPeer {
			t, err = pool.Await(ctx, l.exchange.Block(), l.pickNow)
		} else if t, err = pool.AwaitConnection(ctx, l.exchange.Block(), l.query); l.retryLeft(err) {
			t, err = l.pickNow()
		}
		waited := time.Since(start)
		if *left = timeout - waited; left == &l.forPeer {
			l.query.Waited += waited
		}
		if ctx.Err() != nil || left == &l.forPeer && lacksPeer(err) { // there will be none
			*left = 0
		}
		end()
	}
	return t, nil
}

// lacksPeer reports whether err, of a pick, says that no peer may get requests.
func lacksPeer(err error) bool { return err == balancer.ErrNoPeers || err == balancer.ErrNoEligible }

// pickNow is pick without a wait.
func (l *Loop) pickNow() (t balancer.Token, err error) {
	for {
		l.query.Tries = uint8(l.Tries - l.again)
		if t, err = l.service.Pool.Pick(l.query); !l.retryLeft(err) {
			return t, err
		}
	}
}

// retryLeft lets a peer that was left be tried again if err, of a pick, says that no other one can
// be, and it is well now: its checks failed for a while. It reports whether there is one. Where a
// group has a fallback, err is about the fallback: so it need not be ErrAllTried.
func (l *Loop) retryLeft(err error) bool {
	if err != balancer.ErrAllTried && !lacksPeer(err) {
		return false
	}
	for _, p := range l.left.Peers() {
		if p.Used() && !p.Has(^balancer.Reason(0)) {
			l.left.Remove(p)
			l.query.Tried.Remove(p)
			l.again++
			return true
		}
	}
	return false
}
