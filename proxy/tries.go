package proxy

import (
	"context"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/observe/tracing"
	"sluice/proxy/attempt"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/proxy/upstream"
)

// tries is the request on its way to peers: the fourth part of an exchange.
type tries struct {
	request *request
	route   *chosenRoute
	body    *requestBody

	token       balancer.Token // of the last try
	tried       triedPeers
	held        upstream.Conn // of the present try; nil: none, or it is finished
	lastRefusal *refusal.Refusal
	picked      time.Time // when the peer of token was picked
	// firstPicked is when the first peer was picked, after the body was buffered.
	firstPicked   time.Time
	timing        tryTiming
	attempts      attempt.Loop
	upstreamTime  time.Duration // from the start to the end of the response head
	mayReplaySent bool          // the method is idempotent
	touched       bool          // a peer may have received a part of the request
}

// beginTry notes the start of a try.
func (x *tries) beginTry(t balancer.Token) {
	x.token, x.lastRefusal, x.timing, x.upstreamTime = t, nil, tryTiming{}, 0
	if x.picked = t.Picked(); x.attempts.Tries <= 1 {
		x.firstPicked = x.picked
	}
	try := x.tried.begin(t.Peer, t.Picked().Sub(x.request.startTime))
	if x.request.span.Sampled {
		try.span = tracing.NewSpanID()
	}
}

// endTry records the outcome of the try, and returns it with the endpoint.
func (x *tries) endTry(o balancer.Outcome) balancer.Outcome {
	o.Endpoint = x.request.endpoint
	x.tried.last().end(o, x.request.startTime)
	return o
}

// send sends the request to the peer and waits for a response. It replaces a stale
// connection by a new one, since that is no failure of the peer. If there is no
// response, u is nil and o says why.
func (x *tries) send(peer upstream.Connector) (u upstream.Conn, o balancer.Outcome) {
	r, try := x.requirements(), x.tried.last()
	for {
		var err error
		x.held = nil // it is Connect's now
		if u, try.connect, err = peer.Connect(x.request.client.server.ctx, r, u); err != nil {
			return nil, x.connectFailed(err)
		}
		x.held = u
		sent, err := x.sendOn(u)
		x.touched = x.touched || sent
		if err = x.stay(u, err); err == nil {
			return u, o
		}
		if o, again := x.sendFailed(u, err); !again {
			x.finish(u, false)
			return nil, o
		}
	}
}

// stay goes on with the wait for u, which has ended with err, as long as no other peer can be asked
// in place of one that may hang: its health checks fail, or the time of its try is over.
func (x *tries) stay(u upstream.Conn, err error) error {
	until := x.until()
	for err != nil {
		switch {
		case err == upstream.ErrSuspected:
			changed, left := x.attempts.Leave()
			if left {
				return err
			}
			until = upstream.Until{Changed: changed}
		case !x.prolongs(u, err):
			return err
		}
		err = u.Await(&x.body.buffers, until)
	}
	return nil
}

// until returns what ends a wait for a peer.
func (x *tries) until() upstream.Until {
	return upstream.Until{Suspicion: x.mayReplaySent && !x.request.streaming && !x.onOwnConnection() && x.attempts.MayLeave()}
}

// onOwnConnection reports whether the request belongs on the connection on which its client has
// authenticated itself, or does so. A peer that is asked on another one does not know the client.
func (x *tries) onOwnConnection() bool {
	return x.request.head.ConnectionAuth || x.request.client.HasOwned
}

// finish finishes u, which the exchange holds.
func (x *tries) finish(u upstream.Conn, complete bool) {
	x.held = nil
	u.Finish(complete)
}

// requirements returns what the exchange requires of an upstream to the peer of its try.
func (x *tries) requirements() upstream.Requirements {
	return upstream.Requirements{
		Picked: x.picked, Timeout: x.route.service.Timeouts.Connect, Deadline: x.request.deadline, Pause: x.route.pause(),
		Client: &x.request.client.Client, KeepForGone: x.request.client.options.KeepForGoneClients, WebSocket: x.request.asksForWebSocket(),
		Body: x.request.streaming || len(x.body.bytes) > 0, Private: x.request.head.ConnectionAuth, HTTP2: x.route.service.HTTP2,
	}
}

// connectFailed classifies an error of opening a connection.
func (x *tries) connectFailed(err error) (o balancer.Outcome) {
	switch {
	case err == upstream.ErrNoWebSocket:
		x.lastRefusal = refusal.NoWebSocket
		return balancer.Outcome{Class: balancer.OutcomeClientGone}
	case x.request.client.cutBy() != nil:
		return balancer.Outcome{Class: balancer.OutcomeLocal}
	case x.request.client.Gone.Load():
		return balancer.Outcome{Class: balancer.OutcomeClientGone}
	case x.request.deadlinePassed():
		x.lastRefusal = refusal.Deadline
		return balancer.Outcome{Class: balancer.OutcomeClientGone}
	}
	if o, denied := x.denied(err); denied {
		return o
	}
	o, x.lastRefusal = dialFailure(err)
	return o
}

// denial returns why the mesh has ended a connection to the peer of a token with err; nil: it has
// not. A peer that ends a connection because Consul's intentions deny it is not at fault, and no
// other one would do better. So the request is refused with the names of both services.
func denial(t balancer.Token, err error, waiting func(time.Duration) (context.Context, context.CancelFunc)) *discovery.Denial {
	return t.Peer.Transport.(upstream.Connector).Denial(err, waiting)
}

// denied reports whether the mesh has ended the connection to the last peer with err, before an
// answer. Then it sets the refusal.
func (x *tries) denied(err error) (o balancer.Outcome, denied bool) {
	d := denial(x.token, err, x.waiting)
	if d == nil {
		return o, false
	}
	x.lastRefusal = refusal.OfDenial(d)
	return balancer.Outcome{Class: balancer.OutcomeDenied}, true
}

// sendOn sends the request on u and waits for a response.
func (x *tries) sendOn(u upstream.Conn) (sent bool, err error) {
	if err := x.writeRequestHead(); err != nil {
		return false, err
	}
	if x.request.streaming {
		return x.body.upload.start(u)
	}
	if x.timing.end == 0 {
		x.timing = x.tryTiming()
	}
	u.WaitAtMost(x.timing.left(x.request.client.server.sweeper))
	return u.Send(&x.body.buffers, x.body.bytes, x.body.trailer, x.until())
}

// A tryTiming is how long the peer of a try may take to begin its answer.
type tryTiming struct {
	most time.Duration // from when it is asked first
	rest time.Duration // how much longer, if no other peer is there then
	end  int64         // coarse time; 0: it was not asked yet
}

// tryTiming returns the timing of a try, without the end. The per-try timeout applies only if
// another try may follow, with another peer.
func (x *tries) tryTiming() (t tryTiming) {
	t.most = x.route.service.Timeouts.ResponseHeader
	if x.attempts.Tries > 1 { // the first one has all of it
		t.most = x.headTimeLeft()
	}
	if retry := &x.route.service.Retry; retry.PerTryTimeout > 0 && x.mayReplaySent && x.attempts.MayRetry() &&
		x.route.service.Pool.Snapshot().Another(&x.route.query, x.token.Peer) {
		t.rest = max(t.most-retry.PerTryTimeout, 0)
		t.most -= t.rest
	}
	t.most = x.request.withinDeadline(t.most)
	return t
}

// left returns how long the peer may take from now on. It is positive.
func (t *tryTiming) left(s *socket.Sweeper) time.Duration {
	if t.end == 0 { // else the connection before was stale, or ended without the request
		t.end = s.Now() + int64(t.most+socket.SweepInterval)
		return t.most
	}
	return max(time.Duration(t.end-s.Exact()), socket.SweepInterval)
}

// prolongs reports whether the wait for u that ended with err goes on: the time of its try is over,
// and the peers that could have answered instead have left since it began.
func (x *tries) prolongs(u upstream.Conn, err error) bool {
	t := &x.timing
	if t.rest == 0 || x.waitResult(err) != waitTimeout || x.request.deadlineFirst.Load() || x.request.deadlinePassed() || !u.HasSent() ||
		x.route.service.Pool.Snapshot().Another(&x.route.query, x.token.Peer) {
		return false
	}
	u.WaitAtMost(x.request.withinDeadline(t.rest))
	t.end += int64(t.rest)
	t.rest = 0
	return true
}

// headTimeLeft returns what is left of the time for the response head, which is positive.
func (x *tries) headTimeLeft() time.Duration {
	return max(x.route.service.Timeouts.ResponseHeader-time.Since(x.firstPicked), socket.SweepInterval)
}

// sendFailed classifies an error before the first byte of a response. again: the
// request may be sent on a new connection to the same peer.
func (x *tries) sendFailed(u upstream.Conn, err error) (o balancer.Outcome, again bool) {
	if err == upstream.ErrSuspected {
		return balancer.Outcome{Class: balancer.OutcomeSuperseded, Latency: x.latency(time.Now())}, false
	}
	if o, ended := x.endedOtherwise(err); ended {
		return o, false
	}
	if err == http1.ErrHeadTooLong { // after the edits of the route, or for the peer
		x.lastRefusal = refusal.Of(http1.ErrHeadTooLong)
		return balancer.Outcome{Class: balancer.OutcomeClientGone}, false
	}
	if o, denied := x.denied(err); denied {
		return o, false
	}
	x.lastRefusal = refusal.Reset
	delayed := false
	switch {
	case err == upstream.ErrUnprocessed:
		x.body.upload.withdraw()
	case x.mayReplaySent && x.body.upload.expectant() && !x.body.upload.begun.Load():
		delayed = x.delayedByClient() // before withdraw ends the wait for the client
		if x.body.upload.withdraw() {
			maybe, _ := u.ClosedIdle(err)
			return balancer.Outcome{Class: balancer.OutcomeStale}, maybe && x.replayable() // no failure: the peer may have waited for the client
		}
	}
	if delayed || x.delayedByClient() {
		return balancer.Outcome{Class: balancer.OutcomeClientGone}, false
	}
	switch maybe, likely := u.ClosedIdle(err); {
	case likely:
		return balancer.Outcome{Class: balancer.OutcomeStale}, x.replayable()
	case maybe:
		return balancer.Outcome{Class: balancer.OutcomeReset}, x.replayable()
	}
	return x.resetOutcome(), false
}

// endedOtherwise classifies an error of waiting for the peer, unless the peer closed
// the connection.
func (x *tries) endedOtherwise(err error) (o balancer.Outcome, ended bool) {
	if x.request.client.cutBy() != nil { // neither the client nor the peer has ended it
		return balancer.Outcome{Class: balancer.OutcomeLocal}, true
	}
	switch x.waitResult(err) {
	case waitRequest:
		x.lastRefusal = x.body.upload.refusal()
		return balancer.Outcome{Class: balancer.OutcomeClientGone}, true
	case waitClientGone:
		return balancer.Outcome{Class: balancer.OutcomeClientGone, Latency: x.latency(time.Now())}, true
	case waitTimeout:
		if x.request.deadlineFirst.Load() || x.request.deadlinePassed() {
			x.lastRefusal = refusal.Deadline
			return balancer.Outcome{Class: balancer.OutcomeClientGone}, true
		}
		x.lastRefusal = refusal.Timeout
		return balancer.Outcome{Class: balancer.OutcomeTimeout, Latency: x.latency(time.Now())}, true
	}
	return o, false
}

// replayable is [attempt.Exchange.Replayable].
func (x *tries) replayable() bool {
	switch {
	case x.attempts.Tries > 0 && time.Since(x.firstPicked) >= x.route.service.Timeouts.ResponseHeader, x.request.deadlinePassed(), x.touched && !x.mayReplaySent, x.request.client.cutBy() != nil:
		return false
	}
	return !x.body.upload.started || x.body.upload.withdraw()
}

// waiting returns a context for a wait of that long for somebody else than a peer. It also ends
// when the server stops or the client closes its connection. The wait does not count as time of the
// peers that were tried before, and the exchange has no buffers meanwhile.
func (x *tries) waiting(timeout time.Duration) (context.Context, context.CancelFunc) {
	return x.waitingUnless(timeout, nil)
}

// waitingUnless is waiting, and the context also ends when other returns true; nil: it never does.
func (x *tries) waitingUnless(timeout time.Duration, other func() bool) (context.Context, context.CancelFunc) {
	x.body.buffers.GiveBack()
	start := time.Now()
	ctx, cancel := context.WithTimeout(x.request.client.server.ctx, timeout)
	r := upstream.Requirements{Client: &x.request.client.Client, Deadline: x.request.deadline, KeepForGone: x.request.client.options.KeepForGoneClients}
	ctx, end := r.WhileThere(ctx, other)
	return ctx, func() {
		end()
		cancel()
		if x.attempts.Tries > 0 {
			x.firstPicked = x.firstPicked.Add(time.Since(start))
		}
	}
}

// endOfWait returns why a wait for somebody else than a peer has failed: r, unless sluice has cut
// it, or the client has left or no longer waits.
func (x *tries) endOfWait(r *refusal.Refusal) *refusal.Refusal {
	cut := x.request.client.cutBy()
	switch {
	case cut != nil:
		return cut
	case x.request.client.Gone.Load():
		return refusal.ClientGone
	case x.request.deadlinePassed():
		return refusal.Deadline
	}
	return r
}

// appendCookies appends the Set-Cookie lines of a final response of a peer: with the id of the
// peer, if the client is to come back to it, and with the new id of the client.
func (x *tries) appendCookies(out []byte) []byte {
	if x.route.service.Affinity != nil {
		out = x.route.appendStickyCookie(out, x.token.Peer)
	}
	if x.route.newClient != 0 {
		out = x.route.appendSplitCookie(out)
	}
	return out
}

// bodyRead reports whether the whole request was read.
func (x *requestBody) bodyRead() bool { return !x.request.streaming || x.upload.read.Load() }
