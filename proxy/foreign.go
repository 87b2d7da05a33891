package proxy

import (
	"context"

	"sluice/balancer"
	"sluice/route"
)

// Exchange is one request and its response in a protocol that is not this
// package's.
type Exchange interface {
	// Try sends the request to the token's peer and passes on the response. It
	// does not call Done.
	Try(t balancer.Token) balancer.Outcome
	// Replayable reports whether the request can be sent again: nothing of it is
	// lost, and it may be sent twice or no peer has seen any of it.
	Replayable() bool
	// Started reports whether the client has got a byte of the response.
	Started() bool

	// Waiting reports whether Try returned only because its patience with the
	// peer was over. Then either Await or Race is called.
	Waiting() bool
	// Await goes on waiting for the first peer alone.
	Await(first balancer.Token) balancer.Outcome
	// Race tries a second peer while it waits for the first, passes on the answer
	// that comes first, and drops the other, whose outcome is
	// [balancer.OutcomeSuperseded].
	Race(first, second balancer.Token) (firstOutcome, secondOutcome balancer.Outcome)

	// Suspicious reports whether Try returned only because checks say that the
	// peer does not work. Then either Await or Leave is called.
	Suspicious() bool
	// Leave gives up the first peer: another one is tried instead. The outcome is
	// [balancer.OutcomeSuperseded].
	Leave(first balancer.Token) balancer.Outcome
}

// Attempts sends x as this package sends its own requests: to peers of the
// service's pool, one after the other, until one answers, within the limits of
// service.Retry and the pool. It returns the outcome of the last try and how
// many there were. err is why no peer could be picked for the next one; it
// comes with no outcome only where none was tried. No peer is waited for
// (WaitForPeer) beyond the end of ctx.
func Attempts(ctx context.Context, service *route.Service, query *balancer.Query, x Exchange) (o balancer.Outcome, tries int, err error) {
	return attempts(ctx, service, query, foreign{x})
}

// foreign is an Exchange as an exchange of this package.
type foreign struct{ Exchange }

func (f foreign) try(t balancer.Token) balancer.Outcome   { return f.Try(t) }
func (f foreign) replayable() bool                        { return f.Replayable() }
func (f foreign) started() bool                           { return f.Started() }
func (f foreign) waiting() bool                           { return f.Waiting() }
func (f foreign) await(t balancer.Token) balancer.Outcome { return f.Await(t) }
func (f foreign) suspicious() bool                        { return f.Suspicious() }
func (f foreign) leave(t balancer.Token) balancer.Outcome { return f.Leave(t) }

func (f foreign) race(first, second balancer.Token) (firstOutcome, secondOutcome balancer.Outcome) {
	return f.Race(first, second)
}
