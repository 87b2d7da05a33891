package proxy

import (
	"cmp"
	"errors"
	"os"
	"time"

	"sluice/balancer"
	"sluice/proxy/grpc"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/reserved"
	"sluice/proxy/transfer"
	"sluice/proxy/upstream"
	"sluice/route/compression"
)

// An answer is what the client gets: the response of a peer as it is forwarded, or an answer of
// sluice. It is the last part of an exchange.
type answer struct {
	request *request
	route   *chosenRoute
	body    *requestBody
	tries   *tries

	encoder     *compression.Encoder // of the response that is relayed; nil: it is not compressed
	refused     string               // the reason of the refusal that was sent
	interrupted string               // why the response is incomplete
	flushDelay  time.Duration        // see maxFlushDelay
	toCompress  int64                // bytes that the encoder has yet to get; -1: unknown
	status      int
	bytesOut    int64     // of the response's body
	grpcCode    grpc.Code // of the response to a gRPC call; else grpc.Unset
	begun       bool      // a byte of a response was sent
	answered    bool      // a byte of the final response was sent
	counted     bool      // a tunnel has counted bytesIn and bytesOut in the metrics
	response    http1.ResponseHead
}

// reason returns why the answer is sluice's own, or why it is incomplete; "": neither.
func (x *answer) reason() string { return cmp.Or(x.interrupted, x.refused) }

// receive reads the response of u and forwards it. It finishes u.
func (x *answer) receive(u upstream.Conn) balancer.Outcome {
	if x.body.upload.unasked {
		if err := x.askForBody(); err != nil {
			x.tries.finish(u, false)
			return x.tries.writeFailed()
		}
	}
	for {
		text, err := u.ReadHead(&x.body.buffers, &x.response)
		if err != nil {
			return x.receiveFailed(u, err)
		}
		if !x.response.Interim() {
			return x.receiveFinal(u, text)
		}
		first := !x.begun
		if err := x.passInterim(text); err != nil {
			x.tries.finish(u, false)
			return x.tries.writeFailed()
		}
		if first && x.begun && !x.request.streaming && x.route.service.Retry.PerTryTimeout > 0 {
			u.WaitAtMost(x.request.withinDeadline(x.tries.headTimeLeft())) // no other peer may answer instead any more
		}
	}
}

// receiveFailed classifies an error before any byte of the final response was
// forwarded. It finishes u.
func (x *answer) receiveFailed(u upstream.Conn, err error) balancer.Outcome {
	x.tries.finish(u, false)
	if o, ended := x.tries.endedOtherwise(err); ended {
		return o
	}
	switch {
	case err == errDeclined:
		x.tries.lastRefusal = refusal.Declined
		x.tries.mayReplaySent = false
		return balancer.Outcome{Class: balancer.OutcomeClientGone}
	case isMalformed(err), err == http1.ErrResponseTooLong, err == errOtherProtocol, err == upstream.ErrRejected:
		if x.tries.lastRefusal = refusal.BadResponse; err == http1.ErrResponseTooLong {
			x.tries.lastRefusal = refusal.LongResponse
		}
		x.tries.mayReplaySent = false // another peer would probably send the same
		switch {
		case err == http1.ErrResponseField, err == http1.ErrResponseTooLong:
			return balancer.Outcome{Class: balancer.OutcomeRefused}
		case !isMalformed(err):
			return balancer.Outcome{Class: balancer.OutcomeClientGone}
		}
		return balancer.Outcome{Class: balancer.OutcomeReset, Latency: x.tries.latency(time.Now())}
	}
	if o, denied := x.tries.denied(err); denied {
		return o
	}
	x.tries.lastRefusal = refusal.Reset
	return x.tries.resetOutcome()
}

// isMalformed reports whether err is an error of http1.
func isMalformed(err error) bool {
	var malformed *http1.Error
	return errors.As(err, &malformed)
}

var continueHead = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// askForBody sends a 100 in place of the peer. It may not know of it; if it hangs, its time
// for the answer begins with the end of the body.
func (x *answer) askForBody() error {
	x.body.upload.unasked = false
	x.body.buffers.Borrow()
	x.response.Reset(0)
	_, _ = x.response.Scan(continueHead)
	return x.passInterim(continueHead)
}

// passInterim forwards a 1xx response if the client supports it (RFC 9110, section
// 15.2).
func (x *answer) passInterim(head []byte) error {
	if x.request.head.HTTP10 || x.response.Status == 100 && (!x.request.head.ExpectContinue || x.body.upload.continued) {
		return nil
	}
	x.begun = true
	x.body.upload.continued = x.body.upload.continued || x.response.Status == 100
	x.body.buffers.Out = x.request.client.downstream.appendHead(x.body.buffers.Out[:0], head)
	return x.request.client.downstream.WriteBody(&x.body.buffers, transfer.Piece{})
}

// receiveFinal forwards a final response with the head text. It finishes u.
func (x *answer) receiveFinal(u upstream.Conn, text []byte) balancer.Outcome {
	x.tries.upstreamTime, x.tries.tried.last().status = time.Since(x.request.startTime), x.response.Status
	outcome := balancer.Outcome{Class: balancer.OutcomeOK, Status: x.response.Status, Latency: x.tries.latency(x.request.startTime.Add(x.tries.upstreamTime))}
	if x.response.Status >= 500 {
		outcome.Class = balancer.OutcomeServerError
	}
	x.tries.attempts.Answered(outcome) // the peer no longer works on the request, or only sends
	if x.response.Status == 101 {
		switch {
		case x.switches(text):
			if err := x.writeResponseHead(text); err != nil {
				return x.receiveFailed(u, err)
			}
			return x.receiveTunnel(u)
		case x.request.upgrade:
			return x.receiveFailed(u, errOtherProtocol)
		}
		return x.receiveFailed(u, http1.ErrResponse)
	}
	if x.request.wouldOpen(x.response.Status) {
		return x.receiveFailed(u, errDeclined)
	}
	x.status = x.response.Status
	if x.request.identity.grpc {
		x.grpcCode = grpc.ParseCode(x.response.FindOther(text, "grpc-status"))
	}
	cut := u.StartBody(&x.body.buffers, &x.response, text, x.response.Bodiless(x.request.head.Method == http1.MethodHead))
	if cut != nil && !x.passesCut(cut) {
		return x.receiveFailed(u, cut)
	}
	var err error
	complete := true // the peer's answer was read
	if page, varies := pageForPeer(x); page != nil {
		complete, err = answerWith(page, varies, x, u, text)
	} else {
		if err = x.writeResponseHead(text); err != nil { // before the body overwrites it
			return x.receiveFailed(u, err)
		}
		if cut != nil { // there may be no more of it than the head
			err = x.toClient(transfer.Piece{})
		}
		if err == nil {
			err = x.relay(u)
		}
		if err != nil && !x.answered && x.passesCut(err) {
			err = cmp.Or(x.toClient(transfer.Piece{}), err)
		}
	}
	if err != nil && !x.answered {
		x.bytesOut = 0
		return x.receiveFailed(u, err)
	}
	x.tries.finish(u, err == nil && complete && (!x.request.streaming || x.body.upload.complete()))
	if err == nil {
		if x.request.identity.grpc {
			return x.grpcOutcome(outcome)
		}
		return outcome
	}
	x.grpcCode = grpc.Unset
	if errors.Is(err, errClientWrite) {
		x.request.client.downstream.cut(-1)
	} else {
		x.request.client.downstream.cut(x.bytesOut)
	}
	own := x.request.client.cutBy()
	if own != nil {
		x.interrupted = own.Reason
	}
	if errors.Is(err, errClientWrite) || x.request.client.Gone.Load() { // or it takes no more
		if own == nil {
			x.interrupted = refusal.ClientGone.Reason
		}
		return outcome
	}
	code := grpc.Unavailable
	switch {
	case own != nil:
	case x.body.upload.failed():
		x.interrupted = refusal.ClientGone.Reason
		if r := x.body.upload.refusal(); r != nil {
			x.interrupted, code = r.Reason, r.GRPCCode()
		}
	case err == http1.ErrResponseField: // of the trailer section
		x.interrupted, outcome.Class = "upstream_cut", balancer.OutcomeRefused
	case isMalformed(err):
		x.interrupted, outcome.Class = "upstream_cut", balancer.OutcomeReset
	case x.request.deadlineFirst.Load() && errors.Is(err, os.ErrDeadlineExceeded), x.request.deadlinePassed():
		x.interrupted, code = refusal.Deadline.Reason, grpc.DeadlineExceeded
	case errors.Is(err, os.ErrDeadlineExceeded):
		code = grpc.DeadlineExceeded
		x.interrupted, outcome.Class = "upstream_stalled", balancer.OutcomeTimeout
	case denial(x.tries.token, err, x.tries.waiting) != nil: // the last one, because it may wait
		x.interrupted, outcome.Class, code = refusal.Intention.Reason, balancer.OutcomeDenied, grpc.PermissionDenied
	default:
		x.interrupted, outcome.Class = "upstream_cut", x.tries.resetOutcome().Class
	}
	x.endGRPC(code)
	return outcome
}

// passesCut reports whether the client gets the head of an answer whose body the peer has broken
// off with err, at its start: the app has answered, and no other peer may be asked instead.
func (x *answer) passesCut(err error) bool {
	switch {
	case x.tries.waitResult(err) != waitBroken, isMalformed(err):
		return false
	case x.begun, x.tries.delayedByClient(), err == upstream.ErrRejected,
		!x.tries.attempts.MayRetry():
		return true
	}
	pool := x.route.service.Pool
	s := pool.Snapshot()
	return !pool.Admission.MayRetry(s, x.request.block()) || !s.Another(&x.route.query, x.tries.token.Peer) || !x.tries.replayable()
}

var errClientWrite = errors.New("write to client")

// shortPage is the length of a body that is copied, to be sent together with its head. A longer one
// is sent from the memory that all answers with it share.
const shortPage = 4 << 10

// send sends r, which sluice answers itself: with the page for its status, unless it has a body of
// its own, and with what CORS says. The error is one of the client's connection.
func (x *answer) send(r *refusal.Refusal) error {
	c := x.request.client
	keep := c.downstream.keepsOpen() && r.Status != 413 && r.Status != 408
	x.body.buffers.Borrow()
	var body []byte
	if x.request.identity.grpc {
		x.status, x.grpcCode = 200, r.GRPCCode()
		x.body.buffers.Out = refusal.AppendGRPC(x.body.buffers.Out[:0], r, x.request.appendRequestIDLine(nil))
	} else {
		json := x.request.wantsJSON()
		if page := x.route.errorPage(r.Status, json); page != nil {
			r = r.Showing(page.ContentType, page.Bytes())
		}
		r = withCORS(r, x.route)
		for line := range http1.Lines(x.route.clientFields) {
			r = r.With(string(http1.LineName(line)), string(http1.LineValue(line)))
		}
		var fields [][2]string
		if hsts := c.listener.StrictTransportSecurity; hsts != "" {
			fields = append(fields, [2]string{"Strict-Transport-Security", hsts})
		}
		if services := c.listener.alternativeServices(); services != "" {
			fields = append(fields, [2]string{"Alt-Svc", services})
		}
		if len(x.request.requestID) > 0 {
			fields = append(fields, [2]string{"X-Request-Id", string(x.request.requestID)})
		}
		if keep && x.request.head.HTTP10 { // else the client may wait for the end of the connection
			fields = append(fields, [2]string{"Connection", "keep-alive"})
		}
		x.body.buffers.Out, body = refusal.Append(x.body.buffers.Out[:0], r, keep, json, x.request.head.Method == http1.MethodHead, fields...)
		if x.bytesOut = int64(len(body)); len(body) <= shortPage {
			x.body.buffers.Out, body = append(x.body.buffers.Out, body...), nil
		}
	}
	err := c.downstream.writeAnswer(x.body.buffers.Out, body)
	if err != nil || !keep {
		c.downstream.closeAfterAnswer()
	}
	return err
}

// toClient sends x.out, which may contain the head, and p to the client.
func (x *answer) toClient(p transfer.Piece) error {
	x.begun, x.answered = true, true
	if x.request.client.downstream.WriteBody(&x.body.buffers, p) != nil {
		return errClientWrite
	}
	return nil
}

// relay sends x.out, the head, and the body. The start of the body is validated before
// anything is sent. The error is errClientWrite or an error of the peer.
func (x *answer) relay(u upstream.Conn) error {
	if x.encoder != nil {
		return x.relayCompressed(u)
	}
	to := x.request.client.downstream
	for {
		p, err := u.ReadBody(&x.body.buffers, to.TakesCoded())
		switch {
		case x.answered && errors.Is(err, os.ErrDeadlineExceeded) && to.isWhole(x.bytesOut):
			return x.toClient(transfer.Piece{Last: true}) // the stream of the peer is reset
		case err != nil:
			return err
		}
		x.bytesOut += p.Length
		if p.Last && x.request.identity.grpc && len(p.Trailer) > 0 {
			x.grpcCode = grpc.CodeOfTrailer(p.Trailer)
		}
		p.Trailer = x.route.filterTrailer(p.Trailer, reserved.ToClients)
		if err := x.toClient(p); err != nil || p.Last {
			return err
		}
		x.dropSentBody(u)
		if !x.request.streaming || x.body.upload.ended.Load() {
			switch done, sourceFailed, err := transfer.Splice(&x.body.buffers, to, u, &x.bytesOut, nil); {
			case done && err != nil && !sourceFailed:
				return errClientWrite
			case done:
				return err
			}
		}
		x.awaitBody(u, to.isWhole(x.bytesOut))
	}
}

// awaitBody sets the timeout for the next piece of the response's body, or for its end if all of it
// isWhole. None runs until the peer has the whole request, because it may wait for the client.
func (x *answer) awaitBody(u upstream.Conn, isWhole bool) {
	x.dropSentBody(u)
	if !x.request.streaming || x.body.upload.answering() {
		pause := x.route.bodyPause()
		if isWhole {
			pause = min(pause, endPause)
		}
		u.WaitAtMost(pause)
	}
}

// dropSentBody drops a body that was kept so that the request could be sent again: it is not, as a
// part of the answer was sent.
func (x *answer) dropSentBody(u upstream.Conn) {
	if !x.request.streaming && x.body.buffer != nil && u.HasSent() {
		x.body.dropBody()
	}
}

// endPause is how long a peer with HTTP/2 that has sent all of the Content-Length may take to end
// the stream: a client that gets no trailer section has the whole response, and waits for nothing
// but its next one, or for the end of its stream or of what is compressed.
const endPause = 5 * time.Second

// releaseHeld gives back what is counted.
func (x *answer) releaseHeld() {
	defer x.dropEncoder()
	if u := x.tries.held; u != nil {
		x.tries.finish(u, false)
	}
}
