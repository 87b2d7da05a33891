// Package attempt sends a request to peers of a service until one answers. It
// knows no protocol: an [Exchange] carries out each try.
package attempt

import (
	"context"
	"time"

	"sluice/balancer"
	"sluice/route"
)

// An Exchange is one request and its response, in whatever protocol.
type Exchange interface {
	// Try sends the request to the token's peer and passes the response on. It
	// does not call Done.
	Try(t balancer.Token) Result
	// Replayable reports whether the request can be sent again: there is time
	// left, nothing of it is lost, and the method allows it or no peer has seen
	// any of it.
	Replayable() bool
	// Answered reports whether the peer of the last token has begun to answer, and
	// [balancer.Token.Answered] or Connected was called.
	Answered() bool
	// Started reports whether a byte of the response was sent to the client.
	Started() bool
	// Waiting returns a context for a wait for a peer. It ends after timeout, or when
	// the client no longer waits for the response. The caller calls end after the wait.
	Waiting(timeout time.Duration) (ctx context.Context, end context.CancelFunc)
}

// A Racer is an Exchange whose Try may return before the peer has answered. The peers that
// were asked, by that Try or by Ask, are its contenders. A contender is one until an Await
// returns its Outcome, or Receive or Leave is called for it.
type Racer interface {
	Exchange
	// Ask sends the request to one more peer, and does not wait for it.
	Ask(t balancer.Token)
	// Await waits for all contenders, and returns which of them ends the wait, and why:
	// Answered, Done or Suspected. For one that was Suspected before, changed takes the
	// place of the suspicion: the close of the channel, if it is not nil.
	Await(changed <-chan struct{}) (balancer.Token, Result)
	// Receive passes on the answer of the only contender, which is Answered.
	Receive(t balancer.Token) balancer.Outcome
	// Leave abandons a contender, because another peer is tried instead. The outcome is
	// [balancer.OutcomeSuperseded].
	Leave(t balancer.Token) balancer.Outcome
}

// Kind says why Try or Await returned.
type Kind uint8

const (
	Done      Kind = iota // the try has an outcome
	Answered              // the peer has begun to answer; of Await
	Impatient             // there is no answer yet: it is time for a hedge; of Try
	Suspected             // there is no answer yet, and health checks of the peer fail
)

// A Result is the result of a Try or an Await. Only the Try of a Racer returns other kinds
// than Done.
type Result struct {
	Kind    Kind
	Outcome balancer.Outcome // of kind Done
}

// Ended is the result of a try with that outcome.
func Ended(o balancer.Outcome) Result { return Result{Outcome: o} }

// MaxTries bounds the tries of a request, also the ones that did not reach a
// peer: a [balancer.TriedSet] remembers as many peers less one.
const MaxTries = 5

// Run tries x on peers of the service's pool until one answers, and returns the
// outcome of the last try and how many there were. err is why no peer could be
// picked for the next try; it comes without an outcome only where there was no
// try.
//
// A try that does not reach a peer does not count as one of Retry.Attempts,
// unless Attempts is 1: it harms nobody, and several peers may be gone before the
// registry says so. Nor does one that ended with Leave.
func Run(service *route.Service, query *balancer.Query, x Exchange) (o balancer.Outcome, tries int, err error) {
	r := run{service: service, query: query, held: held{exchange: x}, forPeer: service.WaitForPeer - query.Waited, forConnection: service.ConnectionWait}
	defer r.held.release()
	reached := 0
	t, err := r.pick(x)
	for err == nil {
		r.held.take(t)
		result := x.Try(t)
		r.tries++
		if o = result.Outcome; result.Kind == Done {
			r.held.done(t, o)
		} else {
			o = r.contend(x.(Racer), t, result)
		}
		if o.Class != balancer.OutcomeConnectFailure || service.Retry.Attempts == 1 {
			reached++
		}
		if !retryable(o) || x.Started() || !x.Replayable() || reached >= service.Retry.Attempts || r.tries >= MaxTries {
			return o, r.tries, nil
		}
		query.Tried.Add(t.Peer)
		t, err = r.pick(x)
	}
	return o, r.tries, err
}

// retryable reports whether another peer may do better.
func retryable(o balancer.Outcome) bool {
	switch o.Class {
	case balancer.OutcomeConnectFailure, balancer.OutcomeTimeout, balancer.OutcomeReset, balancer.OutcomeStale, balancer.OutcomeLocal:
		return true
	}
	return false
}

// A run is the state of Run.
type run struct {
	service *route.Service
	query   *balancer.Query
	tries   int
	held    held
	left    balancer.TriedSet // which were tried, and have not failed
	again   int               // tries of peers that may be tried again

	// How long the request may still wait for a peer, and for a connection to one.
	forPeer, forConnection time.Duration
}

// pick picks a peer, for whichever try. If there is none, or all connections are in use, it
// waits for one, for all tries together as long as the service allows: what it has waited for may be gone
// when it comes to it. err is why there is none.
func (r *run) pick(x Exchange) (t balancer.Token, err error) {
	pool := r.service.Pool
	for t, err = r.pickNow(); err != nil; {
		var none time.Duration
		left := &none
		switch {
		case lacksPeer(err):
			left = &r.forPeer
		case err == balancer.ErrConnectionsSaturated:
			left = &r.forConnection
		}
		timeout := *left
		if timeout <= 0 {
			return t, err
		}
		start := time.Now()
		ctx, end := x.Waiting(timeout)
		if left == &r.forPeer {
			t, err = pool.Await(ctx, r.pickNow)
		} else if t, err = pool.AwaitConnection(ctx, r.query); r.retryLeft(err) {
			t, err = r.pickNow()
		}
		waited := time.Since(start)
		if *left = timeout - waited; left == &r.forPeer {
			r.query.Waited += waited
		}
		if ctx.Err() != nil || left == &r.forPeer && lacksPeer(err) { // there will be none
			*left = 0
		}
		end()
	}
	return t, nil
}

// lacksPeer reports whether err, of a pick, says that no peer may get requests.
func lacksPeer(err error) bool { return err == balancer.ErrNoPeers || err == balancer.ErrNoEligible }

// pickNow is pick without a wait.
func (r *run) pickNow() (t balancer.Token, err error) {
	for {
		r.query.Tries = uint8(r.tries - r.again)
		if t, err = r.service.Pool.Pick(r.query); !r.retryLeft(err) {
			return t, err
		}
	}
}

// retryLeft lets a peer that was left be tried again if err, of a pick, says that no other one can be, and it is well now: its
// checks failed for a while, or another one has answered first. It reports whether there is one. Where a group has a fallback, err
// is about the fallback: so it need not be ErrAllTried.
func (r *run) retryLeft(err error) bool {
	if err != balancer.ErrAllTried && !lacksPeer(err) {
		return false
	}
	for _, p := range r.left.Peers() {
		if p.Used() && !p.Has(^balancer.Reason(0)) {
			r.left.Remove(p)
			r.query.Tried.Remove(p)
			r.again++
			return true
		}
	}
	return false
}
