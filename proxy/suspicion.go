package proxy

import (
	"time"

	"sluice/balancer"
)

// leavable reports whether the exchange leaves its peer when checks begin to
// fail, if there is another one: the request may be sent twice, and it was not
// forbidden to try again. With a peer that hangs that is long before a timeout.
func (x *httpExchange) leavable() bool {
	return x.mayReplaySent && !x.streaming && x.service.Retry.Attempts > 1 && x.tries+1 < maxTries
}

// suspicious implements exchange.
func (x *httpExchange) suspicious() bool { return x.pending != nil && x.suspects }

// leave implements exchange.
func (x *httpExchange) leave(balancer.Token) balancer.Outcome {
	u := x.pending
	x.pending = nil
	u.transport.discard(u)
	return balancer.Outcome{Class: balancer.OutcomeSuperseded, Latency: time.Since(x.picked)}
}
