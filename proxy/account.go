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

// account records the finished exchange in the metrics, its spans and the access log.
func (x *httpExchange) account() {
	x.serving = false
	c := x.client
	duration := time.Since(x.startTime)
	x.observe(duration)
	if !x.counted {
		x.record(duration)
	}
	log := c.server.options.Load().AccessLog
	if !log.Enabled() {
		return
	}
	b := x.in[x.start:x.end]
	// A literal would be built in a copy, which makes the stack of each new connection grow.
	var entry accesslog.Entry
	entry.Time, entry.Duration, entry.Waited, entry.Connect = x.startTime, duration, x.waited(duration), x.connectTime
	entry.Client, entry.User, entry.RequestID, entry.Proto = x.clientAddress(), x.user, x.requestID, c.protocol()
	entry.Status, entry.UpstreamStatus, entry.GRPCStatus = x.status, x.upstreamStatus, x.grpcCode.String()
	entry.BytesIn, entry.BytesOut, entry.Attempts = x.bytesIn, x.bytesOut, x.attempts.Tries
	entry.Reason, entry.Failed = x.refused, x.statusForMetrics() >= 500
	if x.upstreamTime > 0 {
		entry.Upstream = x.upstreamTime - x.picked.Sub(x.startTime)
	}
	var trace [2 * len(x.span.Trace)]byte
	if !x.span.Trace.IsZero() {
		entry.TraceID = x.span.Trace.Append(trace[:0])
	}
	if x.interrupted != "" {
		entry.Reason = x.interrupted
		// A tunnel may be open as long as its ends like.
		entry.Failed = entry.Failed || cutBySluice(x.interrupted) || !x.counted && x.interrupted != refusal.ClientGone.Reason
	}
	if x.head.HTTP10 {
		entry.Proto = "HTTP/1.0"
	}
	c.session.describe(&entry)
	if x.headLength > 0 {
		entry.Method, entry.Target, entry.Host = x.head.MethodName(b), x.head.Target(b), x.head.Authority(b)
		entry.UserAgent = x.head.Find(b, http1.NameUserAgent)
		entry.Referer = x.head.Find(b, http1.NameReferer)
		entry.Head = b[:x.headLength]
		if x.standing.trusted {
			entry.Proxy = c.address
		}
	}
	if x.service != nil {
		entry.Service = x.service.Name
	}
	if x.token.Peer != nil {
		entry.Peer = x.token.Peer.Address()
		entry.Group = x.token.Peer.Group().Name()
	}
	if x.tried.count > 1 {
		x.logTries(log, &entry, duration)
		return
	}
	log.Log(c.Shard, &entry)
}

// logTries logs an exchange of several tries. It is a function of its own because the memory
// of the tries would be cleared for each request, and would make the stack of each new
// connection grow.
func (x *httpExchange) logTries(log *accesslog.Logger, single *accesslog.Entry, duration time.Duration) {
	var tries [attempt.MaxTries]accesslog.Try
	entry := *single
	entry.Tries = x.tried.appendTries(tries[:0], duration)
	log.Log(x.client.Shard, &entry)
}

// waited returns how long the client has waited in an exchange that took that long: a
// tunnel is open as long as its two ends like.
func (x *httpExchange) waited(duration time.Duration) time.Duration {
	if x.counted {
		return x.upstreamTime
	}
	return duration
}

// observe records the exchange, which took that long, in the metrics.
func (x *httpExchange) observe(duration time.Duration) {
	c := x.client
	requests := c.server.requests
	if x.service != nil {
		requests = x.service.Pool.Requests()
	}
	in, out := x.bytesIn, x.bytesOut
	if x.counted {
		in, out = 0, 0
	}
	requests.Observe(c.Shard, x.statusForMetrics(), duration, in, out)
	if x.grpcCode != grpc.Unset {
		requests.ObserveGRPC(c.Shard, int(x.grpcCode))
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

// reset begins with another exchange. The peers of the last one stay in memory until clear.
func (p *triedPeers) reset() { p.count = 0 }

// clear forgets the peers.
func (p *triedPeers) clear() { *p = triedPeers{} }

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
func (x *answeredRequest) record(duration time.Duration) {
	t := x.client.server.options.Load().Tracer
	if t == nil || !x.span.Sampled {
		return
	}
	c, b := x.client, x.in[x.start:x.end]
	r := &tracing.Request{
		Span: x.span, Start: x.startTime, Duration: duration,
		Scheme: c.scheme(), Proto: c.protocol()[len("HTTP/"):], Client: string(x.clientAddress()), Connected: c.address,
		RequestID: string(x.requestID), Status: x.status, GRPC: x.standing.grpc, GRPCStatus: x.grpcCode.String(),
		Failed: x.statusForMetrics() >= 500 || x.interrupted != "", Reason: x.refused,
	}
	if x.interrupted != "" {
		r.Reason = x.interrupted
	}
	switch {
	case x.head.HTTP10:
		r.Proto = "1.0"
	case c.isHTTP2:
		r.Proto = "2"
	}
	if x.headLength > 0 {
		path, query, _ := bytes.Cut(x.head.OriginTarget(b), questionMark)
		r.Method, r.Host, r.Path, r.Query = string(x.head.MethodName(b)), string(x.head.Authority(b)), string(path), string(query)
		r.Scheme = x.Scheme()
		r.UserAgent = string(x.head.Find(b, http1.NameUserAgent))
		if !x.span.Parent.IsZero() {
			r.TraceState = traceState(&x.head, b)
		}
	}
	if x.matched != nil {
		r.Route = x.matched.Path
	}
	if x.service != nil {
		r.Service = x.service.Name
	}
	all := x.tried.all()
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
	}
	switch t.class {
	case balancer.OutcomeOK, balancer.OutcomeSuperseded, balancer.OutcomeClientGone:
		a.OK = true
	}
	if p, ok := t.peer.Transport.(upstream.Connector); ok {
		a.Secure = p.UsesTLS()
	}
	return a
}
