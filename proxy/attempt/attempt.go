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
	// Started reports whether a byte of the response was sent to the client.
	Started() bool
	// Waiting returns a context for a wait before the first try. It ends after
	// timeout, or when the client no longer waits for the response. The caller calls
	// end after the wait.
	Waiting(timeout time.Duration) (ctx context.Context, end context.CancelFunc)
}

// A Racer is an Exchange whose Try may return before the peer has answered. After
// such a Try, exactly one of the other methods is called.
type Racer interface {
	Exchange
	// Await waits for the peer of the last Try alone.
	Await() balancer.Outcome
	// Race tries a second peer while it waits for the first, passes on the answer
	// that comes first, and drops the other, whose outcome is
	// [balancer.OutcomeSuperseded].
	Race(second balancer.Token) (first, other balancer.Outcome)
	// Leave abandons the last Try, because another peer is tried instead. The outcome
	// is [balancer.OutcomeSuperseded].
	Leave() balancer.Outcome
}

// Kind says why Try returned.
type Kind uint8

const (
	Done      Kind = iota // the try has an outcome
	Impatient             // there is no answer yet: it is time for a hedge
	Suspected             // there is no answer yet, and health checks of the peer fail
)

// A Result is the result of a Try. Only a Racer returns other kinds than Done.
type Result struct {
	Kind    Kind
	Outcome balancer.Outcome // of kind Done
}

// Ended is the result of a try with that outcome.
func Ended(o balancer.Outcome) Result { return Result{Outcome: o} }

// MaxTries bounds the tries of a request, those that did not reach a peer
// included: a [balancer.TriedSet] remembers as many peers less one.
const MaxTries = 5

// Run tries x on peers of the service's pool until one answers, and returns the
// outcome of the last try and how many there were. err is why no peer could be
// picked for the next try; it comes without an outcome only where there was no
// try.
//
// A try that does not reach a peer does not count as one of Retry.Attempts,
// unless those are one: it harms nobody, and several peers may be gone before the
// registry says so. Nor does one that ended with Leave.
func Run(service *route.Service, query *balancer.Query, x Exchange) (o balancer.Outcome, tries int, err error) {
	reached := 0
	t, err := service.Pool.Pick(query)
	if err != nil {
		t, err = wait(service, query, x, err)
	}
	for err == nil {
		result := x.Try(t)
		tries++
		switch o = result.Outcome; result.Kind {
		case Done:
			t.Done(o)
		case Impatient:
			o, tries = hedge(service, query, x.(Racer), t, tries)
		case Suspected:
			query.Tried.Add(t.Peer)
			if other, err := service.Pool.Pick(query); err == nil {
				t.Done(x.(Racer).Leave())
				t = other
				continue
			}
			o = x.(Racer).Await()
			t.Done(o)
		}
		if o.Class != balancer.OutcomeConnectFailure || service.Retry.Attempts == 1 {
			reached++
		}
		if !retryable(o) || x.Started() || !x.Replayable() || reached >= service.Retry.Attempts || tries >= MaxTries {
			return o, tries, nil
		}
		query.Tried.Add(t.Peer)
		t, err = service.Pool.Pick(query)
	}
	return o, tries, err
}

// retryable reports whether another peer may do better.
func retryable(o balancer.Outcome) bool {
	switch o.Class {
	case balancer.OutcomeConnectFailure, balancer.OutcomeTimeout, balancer.OutcomeReset, balancer.OutcomeStale, balancer.OutcomeLocal:
		return true
	}
	return false
}

// wait waits for a first peer that can be picked, and for a connection to it, each
// as long as the service allows. err is why there is none yet.
func wait(service *route.Service, query *balancer.Query, x Exchange, err error) (t balancer.Token, _ error) {
	forPeer, forConnection := service.WaitForPeer, service.ConnectionWait
	for {
		var timeout time.Duration
		await := service.Pool.Await
		switch err {
		case balancer.ErrNoPeers, balancer.ErrNoEligible:
			timeout, forPeer = forPeer, 0
		case balancer.ErrConnectionsSaturated:
			timeout, forConnection = forConnection, 0
			await = service.Pool.AwaitConnection
		}
		if timeout <= 0 {
			return t, err
		}
		ctx, end := x.Waiting(timeout)
		t, err = await(ctx, query)
		end()
	}
}
