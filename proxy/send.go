package proxy

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"sluice/balancer"
)

// try implements exchange.
func (x *httpExchange) try(t balancer.Token) balancer.Outcome {
	x.token, x.lastRefusal, x.suspects = t, nil, false
	if x.picked = t.Picked(); x.tries == 0 {
		x.firstPicked = x.picked
	}
	transport := t.Peer.Transport.(*Transport)
	u, n, outcome, ok := x.send(transport)
	x.tries++
	if !ok {
		return outcome
	}
	return x.receive(u, n)
}

// send sends the request on a connection to the peer and reads the first bytes
// of the response, n of them, into x.from. A connection that proves stale is
// replaced by a new one, once: the peer is not to blame.
func (x *httpExchange) send(transport *Transport) (u *upstreamConn, n int, o balancer.Outcome, ok bool) {
	fresh := false
	for {
		if !fresh {
			u = transport.acquire(x.picked)
		}
		if fresh = fresh || u == nil; fresh {
			dialStart := time.Now()
			var err error
			if u, err = transport.dial(x.client.server.ctx, x.picked, x.service.Timeouts.Connect, x.client.shard); err != nil {
				return nil, 0, x.dialFailed(err), false
			}
			x.connectTime = time.Since(dialStart)
		}
		n, sent, err := x.sendOn(u)
		x.touched = x.touched || sent
		if err == nil {
			return u, n, o, true
		}
		if err == errPatience || err == errSuspected {
			x.pending, x.suspects = u, err == errSuspected
			return nil, 0, o, false
		}
		transport.discard(u)
		if o, retry := x.sendFailed(u, err); !retry || fresh {
			return nil, 0, o, false
		}
		fresh = true
	}
}

// dialFailed classes an error of opening a connection.
func (x *httpExchange) dialFailed(err error) balancer.Outcome {
	x.lastRefusal = refusalConnect
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EADDRNOTAVAIL):
		x.lastRefusal = refusalNoDescriptors
		return balancer.Outcome{Class: balancer.OutcomeLocal}
	case errors.Is(err, net.ErrClosed): // the peer's time to drain is over
		return balancer.Outcome{Class: balancer.OutcomeLocal}
	}
	return balancer.Outcome{Class: balancer.OutcomeConnectFailure}
}

// sendOn does the part of send that needs a connection.
func (x *httpExchange) sendOn(u *upstreamConn) (n int, sent bool, err error) {
	x.out = x.appendRequestHead(x.out[:0])
	x.watchClient(u)
	if x.streaming {
		return x.upload.start(u, x.out, x.from[:])
	}
	u.patience, u.leavable = x.patience(), x.leavable()
	u.arm(u.transport.sweeper, x.tryTimeout())
	if len(x.body) > requestBufferBytes {
		return u.roundTrip(x.out, x.body, x.from[:])
	}
	x.out = append(x.out, x.body...)
	return u.roundTrip(x.out, nil, x.from[:])
}

// tryTimeout is how long a peer may take to answer: a positive duration. It is
// shorter for a try only where another one can follow.
func (x *httpExchange) tryTimeout() time.Duration {
	left := x.service.Timeouts.ResponseHeader
	if x.tries > 0 {
		left = max(left-time.Since(x.firstPicked), sweepInterval)
	}
	if retry := &x.service.Retry; retry.PerTryTimeout > 0 && x.mayReplaySent && x.tries+1 < retry.Attempts {
		left = min(left, retry.PerTryTimeout)
	}
	return left
}

// sendFailed classes an error before the first byte of a response. again: the
// request may be sent on a new connection to the same peer.
func (x *httpExchange) sendFailed(u *upstreamConn, err error) (o balancer.Outcome, again bool) {
	switch {
	case x.upload.failed():
		return x.uploadOutcome(), false
	case x.client.gone.Load():
		return balancer.Outcome{Class: balancer.OutcomeClientGone}, false
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.lastRefusal = refusalTimeout
		return balancer.Outcome{Class: balancer.OutcomeTimeout, Latency: x.latency(time.Now())}, false
	case x.heldUp():
	case u.used && (err == errStale || time.Since(x.picked) < staleWithin):
		x.lastRefusal = refusalReset
		if err == errStale || u.transport.excuses(time.Now()) {
			return balancer.Outcome{Class: balancer.OutcomeStale}, x.replayable()
		}
		return balancer.Outcome{Class: balancer.OutcomeReset}, x.replayable()
	}
	x.lastRefusal = refusalReset
	return x.brokenOff(), false
}

// replayable implements exchange.
func (x *httpExchange) replayable() bool {
	if x.upload.started || x.tries > 0 && time.Since(x.firstPicked) >= x.service.Timeouts.ResponseHeader {
		return false
	}
	return !x.touched || x.mayReplaySent
}

// started implements exchange.
func (x *httpExchange) started() bool { return x.begun }
