package proxy

import (
	"time"

	"sluice/balancer"
	"sluice/observe/metrics"
	"sluice/proxy/attempt"
	"sluice/proxy/grpc"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
)

// begin resets the exchange and starts the clock of a request.
func (x *httpExchange) begin() {
	x.client.downstream.begin()
	x.startTime = time.Now()
	x.decide()
	x.chooseRequestID()
	x.beginTrace()
	x.matched, x.service, x.actions, x.token = nil, nil, nil, balancer.Token{}
	x.target, x.stripped, x.user = x.target[:0], false, ""
	x.query, x.newClient = balancer.Query{}, 0
	x.tries, x.status, x.bytesIn, x.bytesOut = 0, 0, int64(x.bodyLength), 0
	x.tried.reset()
	x.upstreamStatus = 0
	x.connectTime, x.upstreamTime = 0, 0
	x.refused, x.interrupted, x.lastRefusal = "", "", nil
	x.serving, x.begun, x.answered, x.touched, x.counted = true, false, false, false, false
	x.grpcCode, x.deadline = grpc.Unset, time.Time{}
	if x.deadlineFirst.Load() { // cheaper than a store
		x.deadlineFirst.Store(false)
	}
	x.mayReplaySent = x.head.Method.Idempotent()
	x.upload.reset(x)
	body := x.start + x.headLength
	x.body = x.in[body : body+x.bodyLength]
}

// serve serves the request, and reports whether the client got a complete response.
func (x *httpExchange) serve() bool {
	x.begin()
	c := x.client
	b := x.in[x.start:x.end]
	if r := x.challenge(b); r != nil {
		return x.refuse(r)
	}
	if c.listener.httpsPort != 0 && !x.standing.secure {
		return x.redirectToHTTPS()
	}
	table := c.listener.table()
	host, path := x.head.Authority(b), x.head.Path(b)
	matched := table.Match(host, path, (*routedRequest)(x))
	if matched == nil {
		return x.refuse(refusal.NoRoute)
	}
	if w := matched.Weighted; w != nil {
		matched = x.chooseTarget(w, b)
	}
	x.matched, x.service, x.actions = matched, matched.Service, matched.Actions
	x.decideFor(x.service)
	if r := x.setDeadline(b); r != nil {
		return x.refuse(r)
	}
	if table.Evades(host, path) && !c.options.KeepDotSegments {
		return x.refuse(refusal.DotSegment)
	}
	if r := x.notForwarded(b); r != nil {
		return x.refuse(r)
	}
	if x.actions != nil {
		if done, ok := x.act(b); done {
			return ok
		}
	}
	if s := matched.Split; s != nil {
		x.chooseGroup(s, b)
	}
	if a := x.service.Affinity; a != nil {
		x.query.Hash = x.affinity(a, b)
	}
	if x.streaming && !x.bufferBody() {
		if x.lastRefusal != nil {
			return x.refuse(x.lastRefusal)
		}
		x.status, x.interrupted = metrics.StatusClientClosedRequest, "client_gone"
		x.account()
		return false
	}
	if len(x.bodyTrailer) > 0 {
		x.bodyTrailer = x.filterTrailer(x.bodyTrailer, toPeers)
	}
	if matched.Mirror != nil {
		x.copyTo(matched.Mirror, b)
	}
	outcome, tries, err := attempt.Run(x.service, &x.query, x)
	for range tries - 1 {
		x.service.Pool.Requests().Retry(c.shard)
	}
	x.upload.wait()
	switch {
	case x.answered:
	case err != nil && c.gone.Load():
		x.status, x.interrupted = metrics.StatusClientClosedRequest, "client_gone"
	case err != nil && x.deadlinePassed():
		return x.refuse(refusal.Deadline)
	case x.lastRefusal == refusal.Connect && len(x.service.Pool.Snapshot().Eligible) == 0:
		return x.refuse(refusal.NoEligible) // this failure ejected the last peer
	case x.lastRefusal != nil:
		return x.refuse(x.lastRefusal)
	case outcome.Class == balancer.OutcomeClientGone:
		x.status, x.interrupted = metrics.StatusClientClosedRequest, "client_gone"
	case err != nil:
		return x.refuse(refusal.OfPick(err, x.service.Pool, x.query.Group != 0))
	}
	x.account()
	return x.interrupted == ""
}

// refuse answers the request with r, and with more header fields. It reports whether
// the client got it.
func (x *httpExchange) refuse(r *refusal.Refusal, fields ...[2]string) bool {
	c := x.client
	b := x.in[x.start:x.end]
	keep := c.downstream.keepsOpen() && r.Status != 413 && r.Status != 408
	x.status, x.refused = r.Status, r.Reason
	var bodyBytes int
	if x.standing.grpc {
		x.status, x.grpcCode = 200, r.GRPCCode()
		x.Borrow()
		x.Out = refusal.AppendGRPC(x.Out[:0], r, x.appendRequestIDLine(nil))
		err := c.downstream.writeAnswer(x.Out)
		x.account()
		return err == nil
	}
	if hsts := c.listener.strictTransportSecurity; hsts != "" {
		fields = append(fields, [2]string{"Strict-Transport-Security", hsts})
	}
	if len(x.requestID) > 0 {
		fields = append(fields, [2]string{"X-Request-Id", string(x.requestID)})
	}
	x.Borrow()
	x.Out, bodyBytes = refusal.Append(x.Out[:0], r, keep,
		x.headLength > 0 && refusal.WantsJSON(x.head.Find(b, http1.NameAccept)), x.head.Method == http1.MethodHead, fields...)
	x.bytesOut = int64(bodyBytes)
	err := c.downstream.writeAnswer(x.Out)
	if err != nil || !keep {
		c.downstream.closeAfterAnswer()
	}
	x.account()
	return err == nil
}
