package proxy

import (
	"errors"
	"os"
	"time"

	"sluice/balancer"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
)

// The behaviour of a client must not count as a failure of the peer: otherwise a
// few clients could cause the ejection of every peer. Therefore no timeout of the
// peer runs while the peer may wait for the client (see upload and pace), and the
// latency of the peer excludes the time of the client.

// errOtherProtocol is an error that a request can cause at a healthy peer.
var errOtherProtocol = errors.New("the peer switches to a protocol that the request does not offer")

// A waitResult is why a wait for a peer has failed.
type waitResult uint8

const (
	waitBroken     waitResult = iota // the peer closed the connection, or sent a malformed response
	waitRequest                      // the body of the request could not be read
	waitClientGone                   // the client has closed its connection
	waitTimeout                      // the peer timed out
)

// waitResult returns why a wait for the peer failed with err.
func (x *tries) waitResult(err error) waitResult {
	switch {
	case x.body.upload.failed():
		return waitRequest
	case x.request.client.Gone.Load():
		return waitClientGone
	case errors.Is(err, os.ErrDeadlineExceeded), !isMalformed(err) && x.request.deadlinePassed():
		return waitTimeout
	}
	return waitBroken
}

// delayedByClient reports whether the peer had to wait for the client. Servers
// reset the connections of slow clients, and sluice is as slow as its client.
func (x *tries) delayedByClient() bool {
	return x.body.upload.waitsForClient() || x.request.client.downstream.waited()
}

// writeFailed returns the outcome after the client's connection has failed, before the peer has
// answered: sluice may have closed it.
func (x *tries) writeFailed() balancer.Outcome {
	if x.request.client.cutBy() != nil {
		return balancer.Outcome{Class: balancer.OutcomeLocal}
	}
	return balancer.Outcome{Class: balancer.OutcomeClientGone}
}

// resetOutcome returns the outcome after the peer has closed the connection early.
func (x *tries) resetOutcome() balancer.Outcome {
	if x.delayedByClient() {
		return balancer.Outcome{Class: balancer.OutcomeClientGone}
	}
	return balancer.Outcome{Class: balancer.OutcomeReset, Latency: x.latency(time.Now())}
}

// latency returns the time from the end of the request to at. 0: the peer did not
// have the whole request.
func (x *tries) latency(at time.Time) time.Duration {
	switch {
	case !x.body.upload.started:
		return at.Sub(x.picked)
	case x.body.upload.ended.Load():
		return max(at.Sub(x.body.upload.endedAt), 0)
	}
	return 0
}

// refusal returns the refusal for a body that could not be read, or nil if the
// client has closed its connection.
func (l *upload) refusal() *refusal.Refusal {
	var malformed *http1.Error
	switch {
	case l.err == errPanicked:
		return refusal.Internal
	case errors.As(l.err, &malformed):
		return refusal.Of(malformed)
	case !errors.Is(l.err, os.ErrDeadlineExceeded):
	case l.expectant() && l.body.bytesIn == 0:
		// The client waits for the peer. That does not count against it: it may not know of 100,
		// and a client that sends nothing could have it ejected.
		return refusal.Timeout
	default:
		return refusal.BodyTimeout
	}
	return nil
}
