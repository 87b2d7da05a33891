package proxy

import (
	"bytes"
	"time"

	"sluice/balancer"
	"sluice/observe/tracing"
	"sluice/proxy/http1"
)

// beginTrace sets the span of the request. Without Options.Tracer it has none, but the
// access log still names the trace of a traceparent field.
func (x *httpExchange) beginTrace() {
	t := x.client.options.Tracer
	known := x.headLength > 0 && x.head.Has(http1.NameTraceparent)
	if t == nil && !known {
		if !x.span.Trace.IsZero() {
			x.span = tracing.Span{}
		}
		return
	}
	var parent tracing.Parent
	if known {
		parent, known = tracing.ParseTraceparent(x.sentOnce(http1.NameTraceparent))
	}
	if t == nil {
		x.span = tracing.Span{Trace: parent.Trace}
		return
	}
	x.span = t.Begin(parent, known, x.standing.trusted)
}

// sentOnce returns the value of the field with that name, or nil if there are several.
func (x *httpExchange) sentOnce(name http1.Name) (value []byte) {
	fields := x.head.Fields()
	for i := range fields {
		if fields[i].Name != name {
			continue
		}
		if value != nil {
			return nil
		}
		value = fields[i].Value(x.in[x.start:x.end])
	}
	return value
}

// appendTraceparent appends the traceparent line for the peer of a try, if the request has
// a span. Otherwise the peer gets what the client has sent.
func (x *httpExchange) appendTraceparent(out []byte, peer *balancer.Peer) []byte {
	if x.span.ID.IsZero() {
		return out
	}
	id := x.span.ID
	if t := x.tried.of(peer); t != nil && !t.span.IsZero() {
		id = t.span
	}
	out = append(out, "traceparent: "...)
	return append(tracing.AppendTraceparent(out, x.span.Trace, id, x.span.Sampled), "\r\n"...)
}

// record exports the spans of the exchange, which took that long, if it is sampled.
func (x *httpExchange) record(duration time.Duration) {
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
		r.Scheme = x.scheme()
		r.UserAgent = string(x.head.Find(b, http1.NameUserAgent))
		if !x.span.Parent.IsZero() {
			r.TraceState = x.traceState(b)
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
			r.Attempts[i].Cause = all[i-1].cause(all[i].start)
		}
	}
	t.Record(r)
}

// traceState returns the tracestate of the request, whose head is b, in one line.
func (x *httpExchange) traceState(b []byte) string {
	const name = "tracestate"
	var state []byte
	fields := x.head.Fields()
	for i := range fields {
		if f := &fields[i]; http1.EqualFold(f.FieldName(b), name) {
			if len(state) > 0 {
				state = append(state, ',')
			}
			state = append(state, f.Value(b)...)
		}
	}
	return string(bytes.ToValidUTF8(state, nil))
}

// attempt returns what the span of a try says. The exchange took total.
func (t *tried) attempt(total time.Duration) tracing.Attempt {
	a := tracing.Attempt{
		ID: t.span, Start: t.start, Duration: t.took(total), Connect: t.connect,
		Peer: t.peer.Address(), PeerID: t.peer.ID.ID, Status: t.status, Outcome: outcomeLabels[t.class],
	}
	switch t.class {
	case balancer.OutcomeOK, balancer.OutcomeSuperseded, balancer.OutcomeClientGone:
		a.OK = true
	}
	if p, ok := t.peer.Transport.(connector); ok {
		a.Secure = p.usesTLS()
	}
	return a
}

// cause returns why a try began at start, after t.
func (t *tried) cause(start time.Duration) string {
	if t.duration == 0 || t.start+t.duration > start {
		return "hedge"
	}
	return outcomeLabels[t.class]
}
