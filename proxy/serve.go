package proxy

import (
	"errors"
	"os"
	"time"

	"sluice/accesslog"
	"sluice/balancer"
	"sluice/http1"
)

// begin starts the clock of a request and forgets the one before.
func (x *httpExchange) begin() {
	c := x.client
	c.phase = phaseRequest
	c.disarm()
	x.clientWriter.pace.waited = false
	x.startTime = time.Now()
	x.service, x.token = nil, balancer.Token{}
	x.query = balancer.Query{}
	x.tries, x.status, x.bytesIn, x.bytesOut = 0, 0, int64(x.bodyLength), 0
	x.connectTime, x.upstreamTime = 0, 0
	x.refused, x.interrupted, x.lastRefusal = "", "", nil
	x.begun, x.answered, x.touched = false, false, false
	x.mayReplaySent = x.head.Method.Idempotent()
	x.upload.reset(x)
	body := x.start + x.headLength
	x.body = x.in[body : body+x.bodyLength]
}

// serve handles the request and reports whether the connection goes on.
func (x *httpExchange) serve() bool {
	x.begin()
	c := x.client
	b := x.in[x.start:x.end]
	x.keepClient = x.head.Persistent() && !c.server.draining.Load()
	matched := c.listener.table().Match(x.head.Authority(b), x.head.Path(b))
	if matched == nil {
		return x.refuse(refusalNoRoute)
	}
	x.service = matched.Service
	if r := x.notForwarded(b); r != nil {
		return x.refuse(r)
	}
	if a := x.service.Affinity; a != nil {
		x.query.Hash = x.affinity(a, b)
	}
	if x.streaming && !x.keepBody() {
		if x.lastRefusal != nil {
			return x.refuse(x.lastRefusal)
		}
		x.status, x.interrupted = statusClientGone, "client_gone"
		x.account()
		return false
	}
	outcome, tries, err := attempts(c.server.ctx, x.service, &x.query, x)
	for range tries - 1 {
		x.service.Pool.Requests().Retry(c.shard)
	}
	x.upload.wait()
	switch {
	case x.answered:
	case x.lastRefusal == refusalConnect && len(x.service.Pool.Snapshot().Eligible) == 0:
		return x.refuse(refusalNoEligible) // it was the last one
	case x.lastRefusal != nil:
		return x.refuse(x.lastRefusal)
	case outcome.Class == balancer.OutcomeClientGone:
		x.status, x.interrupted, x.keepClient = statusClientGone, "client_gone", false
	case err != nil:
		return x.refuse(pickRefusal(err))
	}
	x.account()
	return x.keepClient
}

// keepBody reads a body that is short enough to be kept, so that the request
// can be sent again. It reports false where that failed.
func (x *httpExchange) keepBody() bool {
	length := x.head.ContentLength
	if x.upgrade || x.head.ExpectContinue || length < 0 || length > x.service.Retry.BodyBytes {
		return true
	}
	x.kept = relayBuffers.Get().(*buffer)
	here := int64(copy(x.kept.bytes[:min(length, relayBufferBytes)], x.in[x.start+x.headLength:x.end]))
	x.bodyLength, x.bytesIn = int(here), length
	for here < length {
		if here == int64(len(x.kept.bytes)) {
			x.growKept(length)
		}
		n, err := x.client.read(x.kept.bytes[here:min(length, int64(len(x.kept.bytes)))])
		here += int64(n)
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			x.lastRefusal = refusalBodyTimeout
		}
		return false
	}
	x.body, x.streaming = x.kept.bytes[:length], false
	return true
}

// growKept makes more room for a body of that length, of which no more is taken
// to be on its way than several times what has come: a client may say anything.
func (x *httpExchange) growKept(length int64) {
	full := x.kept
	x.kept = &buffer{make([]byte, min(length, 4*int64(len(full.bytes))))}
	copy(x.kept.bytes, full.bytes)
	if len(full.bytes) == relayBufferBytes {
		relayBuffers.Put(full)
	}
}

// refuse gives an answer of sluice's own and reports whether the connection
// goes on.
func (x *httpExchange) refuse(r *refusal) bool {
	c := x.client
	b := x.in[x.start:x.end]
	keep := x.headLength > 0 && (!x.streaming || x.upload.read.Load()) && x.head.Persistent() && r.status != 413 && r.status != 408 && !c.server.draining.Load()
	x.status, x.refused = r.status, r.reason
	service := ""
	if x.service != nil {
		service = x.service.Name
	}
	var bodyBytes int
	x.out, bodyBytes = appendAnswer(x.out[:0], r, service, keep,
		x.headLength > 0 && wantsJSON(x.head.Find(b, http1.NameAccept)), x.head.Method == http1.MethodHead)
	x.bytesOut = int64(bodyBytes)
	if c.write(x.out) != nil {
		keep = false
	}
	c.linger = !keep
	x.account()
	return keep
}

// account writes the finished exchange to the metrics and the access log.
func (x *httpExchange) account() {
	c := x.client
	duration := time.Since(x.startTime)
	requests := c.server.requests
	if x.service != nil {
		requests = x.service.Pool.Requests()
	}
	requests.Observe(c.shard, x.status, duration, x.bytesIn, x.bytesOut)
	log := c.server.options.AccessLog
	if !log.Enabled() {
		return
	}
	b := x.in[x.start:x.end]
	entry := accesslog.Entry{
		Time: x.startTime, Client: c.clientAddress,
		Status: x.status, BytesIn: x.bytesIn, BytesOut: x.bytesOut,
		Duration: duration, Upstream: x.upstreamTime, Connect: x.connectTime,
		Attempts: x.tries, Reason: x.refused, Proto: "HTTP/1.1",
	}
	if x.interrupted != "" {
		entry.Reason = x.interrupted
	}
	if x.head.HTTP10 {
		entry.Proto = "HTTP/1.0"
	}
	if x.headLength > 0 {
		entry.Method, entry.Target, entry.Host = x.head.MethodName(b), x.head.Target(b), x.head.Authority(b)
		entry.UserAgent = x.head.Find(b, http1.NameUserAgent)
		entry.Referer = x.head.Find(b, http1.NameReferer)
	}
	if x.service != nil {
		entry.Service = x.service.Name
	}
	if x.token.Peer != nil {
		entry.Peer = x.token.Peer.Address()
	}
	log.Log(c.shard, &entry)
}
