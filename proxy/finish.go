package proxy

import (
	"bytes"
	"cmp"
	"strings"
	"time"

	"sluice/balancer"
	"sluice/observe/tracing"
	"sluice/proxy/accesslog"
	"sluice/proxy/attempt"
	"sluice/proxy/grpc"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/upstream"
)

// finish records the finished exchange in the metrics, its spans and the access log.
func (x *exchange) finish() {
	x.serving = false
	c := x.request.client
	duration := time.Since(x.request.startTime)
	x.observe(duration)
	if !x.answer.counted {
		x.answer.record(duration)
	}
	log := c.server.options.Load().AccessLog
	if !log.Enabled() {
		return
	}
	b := x.request.bytes()
	// A literal would be built in a copy, which makes the stack of each new connection grow.
	var entry accesslog.Entry
	entry.Time, entry.Duration, entry.Waited = x.request.startTime, duration, x.waited(duration)
	entry.Client, entry.User, entry.RequestID, entry.Proto = x.request.clientAddress(), x.route.user, x.request.requestID, x.request.protocol()
	entry.Status, entry.GRPCStatus = int64(x.answer.status), x.answer.grpcCode.String()
	entry.BytesIn, entry.BytesOut, entry.Attempts = x.body.bytesIn, x.answer.bytesOut, int64(x.tries.attempts.Tries)
	entry.Reason, entry.Failed = x.answer.reason(), x.answer.statusForMetrics() >= 500
	if x.tries.upstreamTime > 0 {
		entry.Upstream = x.tries.upstreamTime - x.tries.picked.Sub(x.request.startTime)
	}
	var trace [2 * len(x.request.span.Trace)]byte
	if !x.request.span.Trace.IsZero() {
		entry.TraceID = x.request.span.Trace.Append(trace[:0])
	}
	if x.answer.interrupted != "" {
		// A tunnel may be open as long as its ends like.
		entry.Failed = entry.Failed || cutBySluice(x.answer.interrupted) || !x.answer.counted && x.answer.interrupted != refusal.ClientGone.Reason
	}
	c.session.describe(&entry)
	if x.request.headLength > 0 {
		entry.Method, entry.Target, entry.Host = x.request.head.MethodName(b), x.request.head.Target(b), x.request.head.Authority(b)
		entry.UserAgent = x.request.head.Find(b, http1.NameUserAgent)
		entry.Referer = x.request.head.Find(b, http1.NameReferer)
		entry.Head = b[:x.request.headLength]
		if x.request.identity.trusted {
			entry.Proxy = c.address
		}
	}
	if x.route.service != nil {
		entry.Service = x.route.service.Name
	}
	if x.route.matched != nil {
		entry.Route = x.route.matched.Name
	}
	if x.tries.token.Peer != nil {
		last := x.tries.tried.last()
		entry.Connect, entry.UpstreamStatus = last.connect, int64(last.status)
		entry.Peer = x.tries.token.Peer.Address()
		entry.Group = x.tries.token.Peer.Group().Name()
	}
	if x.tries.tried.count > 1 {
		x.logTries(log, &entry, duration)
		return
	}
	log.Log(c.Shard, &entry)
}

// logTries logs an exchange of several tries. It is a function of its own because the memory
// of the tries would be cleared for each request, and would make the stack of each new
// connection grow.
func (x *exchange) logTries(log *accesslog.Logger, single *accesslog.Entry, duration time.Duration) {
	var tries [attempt.MaxTries]accesslog.Try
	entry := *single
	entry.Tries = x.tries.tried.appendTries(tries[:0], duration)
	log.Log(x.request.client.Shard, &entry)
}

// waited returns how long the client has waited in an exchange that took that long: a
// tunnel is open as long as its two ends like.
func (x *exchange) waited(duration time.Duration) time.Duration {
	if x.answer.counted {
		return x.tries.upstreamTime
	}
	return duration
}

// observe records the exchange, which took that long, in the metrics.
func (x *exchange) observe(duration time.Duration) {
	c := x.request.client
	requests := c.server.requests
	if x.route.service != nil {
		requests = x.route.service.Pool.Requests
	}
	in, out := x.body.bytesIn, x.answer.bytesOut
	if x.answer.counted {
		in, out = 0, 0
	}
	status := x.answer.statusForMetrics()
	requests.Observe(c.Shard, status, duration, in, out)
	requests.ObserveResponse(c.Shard, status, x.answer.reason())
	if r := x.route.matched; r != nil && r.Requests != nil {
		r.Requests.Observe(c.Shard, status, duration, 0, 0)
	}
	if x.answer.grpcCode != grpc.Unset {
		requests.ObserveGRPC(c.Shard, int(x.answer.grpcCode))
	}
}

// A tried is a try of an exchange, for the access log and its spans.
type tried struct {
	peer     *balancer.Peer
	start    time.Duration // from the start of the exchange to the pick
	duration time.Duration // 0: to the end of the exchange
	connect  time.Duration // 0: no connection was opened, or it is unknown
	status   int           // of the peer's response; 0: none
	class    balancer.OutcomeClass
	span     tracing.SpanID // zero: none
}

// triedPeers are the tries of an exchange, in the order in which they began.
type triedPeers struct {
	count int
	list  [attempt.MaxTries]tried
}

// begin adds a try.
func (p *triedPeers) begin(peer *balancer.Peer, start time.Duration) *tried {
	t := &p.list[p.count]
	// Field by field: a composite literal would be copied.
	t.peer, t.start, t.duration, t.connect = peer, start, 0, 0
	t.status, t.class, t.span = 0, 0, tracing.SpanID{}
	p.count++
	return t
}

// last returns the last try, which has begun.
func (p *triedPeers) last() *tried { return &p.list[p.count-1] }

func (p *triedPeers) all() []tried { return p.list[:p.count] }

// end records the outcome of a try of an exchange that began at start.
func (t *tried) end(o balancer.Outcome, exchangeStart time.Time) {
	if t.class = o.Class; o.Class != balancer.OutcomeOK && o.Class != balancer.OutcomeServerError {
		t.duration = time.Since(exchangeStart) - t.start
	}
}

// took returns how long the try took, in an exchange that took total.
func (t *tried) took(total time.Duration) time.Duration {
	return cmp.Or(t.duration, total-t.start)
}

// outcomeLabels are the names of outcomes in metrics and logs.
var outcomeLabels = func() (labels [balancer.NumOutcomes]string) {
	for class := range labels {
		labels[class] = strings.ReplaceAll(balancer.OutcomeClass(class).String(), " ", "_")
	}
	return labels
}()

// appendTries appends the entries of the access log for the tries of an exchange that took total.
func (p *triedPeers) appendTries(to []accesslog.Try, total time.Duration) []accesslog.Try {
	all := p.all()
	for i := range all {
		t := &all[i]
		to = append(to, accesslog.Try{
			Peer: t.peer.Address(), Outcome: outcomeLabels[t.class], Status: t.status, Start: t.start, Duration: t.took(total),
		})
	}
	return to
}

// record exports the spans of the exchange, which took that long, if it is sampled.
func (x *answer) record(duration time.Duration) {
	t := x.request.client.server.options.Load().Tracer
	if t == nil || !x.request.span.Sampled {
		return
	}
	c, b := x.request.client, x.request.bytes()
	r := &tracing.Request{
		Span: x.request.span, Start: x.request.startTime, Duration: duration,
		Scheme: c.listener.scheme(), Proto: x.request.protocol()[len("HTTP/"):], Client: string(x.request.clientAddress()), Connected: c.address,
		RequestID: string(x.request.requestID), Status: x.status, GRPC: x.request.identity.grpc, GRPCStatus: x.grpcCode.String(),
		Failed: x.statusForMetrics() >= 500 || x.interrupted != "", Reason: x.reason(),
	}
	if c.version.hasStreams() {
		r.Proto = strings.TrimSuffix(r.Proto, ".0")
	}
	if x.request.headLength > 0 {
		path, query, _ := bytes.Cut(x.request.head.OriginTarget(b), questionMark)
		r.Method, r.Host, r.Path, r.Query = string(x.request.head.MethodName(b)), string(x.request.head.Authority(b)), string(path), string(query)
		r.Scheme = x.request.Scheme()
		r.UserAgent = string(x.request.head.Find(b, http1.NameUserAgent))
		if x.request.span.Continues() {
			r.TraceState = traceState(&x.request.head, b)
		}
	}
	if x.route.matched != nil {
		r.Route = x.route.matched.Path
	}
	if x.route.service != nil {
		r.Service = x.route.service.Name
	}
	all := x.tries.tried.all()
	for i := range all {
		r.Attempts = append(r.Attempts, all[i].attempt(duration))
		if i > 0 {
			r.Attempts[i].Cause = outcomeLabels[all[i-1].class]
		}
	}
	t.Record(r)
}

// traceState returns the tracestate of the request with that head in one line.
func traceState(head *http1.RequestHead, b []byte) string {
	const name = "tracestate"
	var state []byte
	for _, f := range head.Fields() {
		if http1.EqualFold(f.FieldName(b), name) {
			if len(state) > 0 {
				state = append(state, ',')
			}
			state = append(state, f.Value(b)...)
		}
	}
	return string(bytes.ToValidUTF8(state, nil))
}

// attempt returns what the span of a try is made of. The exchange took total.
func (t *tried) attempt(total time.Duration) tracing.Attempt {
	a := tracing.Attempt{
		ID: t.span, Start: t.start, Duration: t.took(total), Connect: t.connect,
		Peer: t.peer.Address(), PeerID: t.peer.ID.ID, Status: t.status, Outcome: outcomeLabels[t.class],
		Secure: t.peer.Transport.(upstream.Connector).UsesTLS(),
	}
	switch t.class {
	case balancer.OutcomeOK, balancer.OutcomeSuperseded, balancer.OutcomeClientGone:
		a.OK = true
	}
	return a
}
