package proxy

import (
	"context"

	"sluice/balancer"
	"sluice/route"
)

// An exchange is one request and its response, of whatever protocol. attempts
// is the only one to call it.
type exchange interface {
	// try sends the request to the token's peer and passes on the response. It
	// does not call Done.
	try(t balancer.Token) balancer.Outcome
	// replayable reports whether the request can be sent again: there is time
	// left, nothing of it is lost, and the method allows it or no peer has seen
	// any of it.
	replayable() bool
	// started reports whether the client has got a byte of the response.
	started() bool

	// waiting reports whether try returned only because its patience with the
	// peer was over. Then either await or race is called.
	waiting() bool
	// await goes on waiting for the first peer alone.
	await(first balancer.Token) balancer.Outcome
	// race tries a second peer while it waits for the first, passes on the answer
	// that comes first, and drops the other, whose outcome is
	// [balancer.OutcomeSuperseded].
	race(first, second balancer.Token) (firstOutcome, secondOutcome balancer.Outcome)

	// suspicious reports whether try returned only because checks say that the
	// peer does not work. Then either await or leave is called.
	suspicious() bool
	// leave gives up the first peer: another one is tried instead. The outcome is
	// [balancer.OutcomeSuperseded].
	leave(first balancer.Token) balancer.Outcome
}

// maxTries bounds the tries of a request, those that did not reach a peer
// included: a [balancer.TriedSet] remembers as many peers less one.
const maxTries = 5

// attempts tries x on peers of the service's pool until one answers, and
// returns the outcome of the last try and how many there were. A try that did
// not even reach a peer does not count as one of Retry.Attempts, unless those
// are one: it harms nobody, and several peers may be gone at a time before the
// registry says so. Nor does one that was left because checks began to fail.
// err is why no peer could be picked for the next try; it comes with no outcome
// only where none was tried. No peer is waited for beyond the end of ctx.
func attempts(ctx context.Context, service *route.Service, query *balancer.Query, x exchange) (o balancer.Outcome, tries int, err error) {
	reached := 0
	t, err := service.Pool.Pick(query)
	if service.WaitForPeer > 0 && (err == balancer.ErrNoPeers || err == balancer.ErrNoEligible) {
		t, err = awaitPeer(ctx, service, query)
	}
	for err == nil {
		o = x.try(t)
		tries++
		if x.suspicious() {
			query.Tried.Add(t.Peer)
			if other, err := service.Pool.Pick(query); err == nil {
				t.Done(x.leave(t))
				t = other
				continue
			}
			o = x.await(t)
			t.Done(o)
		} else if x.waiting() {
			o, tries = hedge(service, query, x, t, tries)
		} else {
			t.Done(o)
		}
		if o.Class != balancer.OutcomeConnectFailure || service.Retry.Attempts == 1 {
			reached++
		}
		if !worthAnotherTry(o) || x.started() || !x.replayable() || reached >= service.Retry.Attempts || tries >= maxTries {
			return o, tries, nil
		}
		query.Tried.Add(t.Peer)
		t, err = service.Pool.Pick(query)
	}
	return o, tries, err
}

// hedge asks a second peer, where there is one and the budget allows it.
func hedge(service *route.Service, query *balancer.Query, x exchange, first balancer.Token, tries int) (balancer.Outcome, int) {
	query.Tried.Add(first.Peer)
	second, err := service.Pool.Pick(query)
	if err != nil {
		o := x.await(first)
		first.Done(o)
		return o, tries
	}
	firstOutcome, secondOutcome := x.race(first, second)
	first.Done(firstOutcome)
	second.Done(secondOutcome)
	answered := firstOutcome.Class == balancer.OutcomeOK || firstOutcome.Class == balancer.OutcomeServerError
	if answered || secondOutcome.Class == balancer.OutcomeSuperseded {
		return firstOutcome, tries + 1
	}
	query.Tried.Add(second.Peer)
	return secondOutcome, tries + 1
}

// worthAnotherTry reports whether another peer may do better.
func worthAnotherTry(o balancer.Outcome) bool {
	switch o.Class {
	case balancer.OutcomeConnectFailure, balancer.OutcomeTimeout, balancer.OutcomeReset, balancer.OutcomeStale, balancer.OutcomeLocal:
		return true
	}
	return false
}

// awaitPeer waits for a peer that can be picked, at most service.WaitForPeer.
func awaitPeer(ctx context.Context, service *route.Service, query *balancer.Query) (balancer.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, service.WaitForPeer)
	defer cancel()
	return service.Pool.Await(ctx, query)
}
