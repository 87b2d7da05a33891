package proxy

import (
	"errors"
	"os"
	"time"

	"sluice/balancer"
	"sluice/http1"
)

// Whatever a client does or leaves undone must not count against the peer that
// its request went to: a few such clients could have every peer ejected. So a
// peer is not waited for while it may be waiting for the client itself (see
// upload and pace), what it does meanwhile does not count, and the time that a
// client takes is not taken for the peer's.

// What a request can bring about at a peer that works.
var (
	errHeadTooLong   = errors.New("the head of the response is over its limit") // it may repeat what is in the request
	errOtherProtocol = errors.New("the peer agrees to a protocol that it was not asked for")
)

// heldUp reports whether the client kept the peer waiting. Servers break off
// connections to clients that are too slow for them, and sluice is as slow as its
// client.
func (x *httpExchange) heldUp() bool {
	return x.upload.waitsForClient() || x.clientWriter.pace.waited
}

// brokenOff is the outcome where the peer broke the connection off.
func (x *httpExchange) brokenOff() balancer.Outcome {
	if x.heldUp() {
		return balancer.Outcome{Class: balancer.OutcomeClientGone}
	}
	return balancer.Outcome{Class: balancer.OutcomeReset, Latency: x.latency(time.Now())}
}

// uploadOutcome is the outcome where the request's body, not the peer, is why
// there is no response.
func (x *httpExchange) uploadOutcome() balancer.Outcome {
	x.lastRefusal = x.upload.refusal()
	return balancer.Outcome{Class: balancer.OutcomeClientGone}
}

// latency is how long the peer took for something that it did at that time: from
// when it had the whole request. 0: it did not wait for that.
func (x *httpExchange) latency(at time.Time) time.Duration {
	switch {
	case !x.upload.started:
		return at.Sub(x.picked)
	case x.upload.ended.Load():
		return max(at.Sub(x.upload.endedAt), 0)
	}
	return 0
}

// refusal is the answer to a body that could not be read, or nil where the
// client is gone.
func (l *upload) refusal() *refusal {
	var malformed *http1.Error
	switch {
	case errors.As(l.err, &malformed):
		return refusalOf(malformed)
	case errors.Is(l.err, os.ErrDeadlineExceeded):
		return refusalBodyTimeout
	}
	return nil
}

// reason is why the body could not be read, in a word.
func (l *upload) reason() string {
	if r := l.refusal(); r != nil {
		return r.reason
	}
	return "client_gone"
}
