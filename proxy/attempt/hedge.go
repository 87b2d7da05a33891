package attempt

import (
	"time"

	"sluice/balancer"
	"sluice/route"
)

// Patience returns after how long Try returns [Impatient]; 0 is never. tries is
// how many tries there were before. now is coarse time in nanoseconds. Only an
// exchange that reads, and has no body, is hedged: it may be sent twice at a time.
func Patience(service *route.Service, tries int, now int64) time.Duration {
	if service.Retry.Hedge == nil || tries > 0 {
		return 0
	}
	return service.Retry.Hedge.Delay(now, service.Pool.Requests())
}

// MayLeave reports whether Try returns [Suspected] when checks of its peer begin
// to fail: long before a timeout, where the peer hangs. tries is how many tries
// there were before. Only an exchange that may be sent twice leaves its peer.
func MayLeave(service *route.Service, tries int) bool {
	return service.Retry.Attempts > 1 && tries+1 < MaxTries
}

// hedge asks a second peer where there is one and the budget allows it, and
// otherwise waits for the first.
func hedge(service *route.Service, query *balancer.Query, x Racer, first balancer.Token, tries int) (balancer.Outcome, int) {
	query.Tried.Add(first.Peer)
	second, err := service.Pool.Pick(query)
	if err != nil {
		o := x.Await()
		first.Done(o)
		return o, tries
	}
	firstOutcome, secondOutcome := x.Race(second)
	first.Done(firstOutcome)
	second.Done(secondOutcome)
	answered := firstOutcome.Class == balancer.OutcomeOK || firstOutcome.Class == balancer.OutcomeServerError
	if answered || secondOutcome.Class == balancer.OutcomeSuperseded {
		return firstOutcome, tries + 1
	}
	query.Tried.Add(second.Peer)
	return secondOutcome, tries + 1
}
