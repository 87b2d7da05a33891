package tracing

import (
	"cmp"
	"math"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Attributes of sluice's own.
const (
	serviceKey   attribute.Key = "sluice.service"
	reasonKey    attribute.Key = "sluice.reason"
	requestIDKey attribute.Key = "sluice.request_id"
	outcomeKey   attribute.Key = "sluice.attempt.outcome"
	causeKey     attribute.Key = "sluice.attempt.cause"
	peerIDKey    attribute.Key = "sluice.peer.id"
	connectKey   attribute.Key = "sluice.attempt.connect_ms"
)

func newResource(o Options) *tracepb.ResourceSpans {
	var a attributes
	a.text(semconv.ServiceNameKey, o.Service)
	a.text(semconv.ServiceInstanceIDKey, o.Instance)
	a.text(semconv.ServiceVersionKey, o.Version)
	return &tracepb.ResourceSpans{Resource: &resourcepb.Resource{Attributes: a}, SchemaUrl: semconv.SchemaURL}
}

// appendSpans appends the spans of r: a server's span, and one of a client for each
// attempt. Names follow OpenTelemetry's conventions for HTTP
// (https://opentelemetry.io/docs/specs/semconv/http/http-spans/).
func (r *Request) appendSpans(spans []*tracepb.Span) []*tracepb.Span {
	spans = append(spans, r.serverSpan())
	for i := range r.Attempts {
		spans = append(spans, r.attemptSpan(i))
	}
	return spans
}

// flags returns the flags of a span: its traceparent's flag, and whether its parent is in another
// process.
func flags(remoteParent bool) uint32 {
	f := uint32(flagSampled) | uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
	if remoteParent {
		f |= uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
	}
	return f
}

func (r *Request) serverSpan() *tracepb.Span {
	method := methodName(r.Method)
	var a attributes
	a.text(semconv.HTTPRequestMethodKey, method)
	if method == otherMethod {
		a.text(semconv.HTTPRequestMethodOriginalKey, r.Method)
	}
	a.text(semconv.URLSchemeKey, r.Scheme)
	a.text(semconv.URLPathKey, r.Path)
	a.text(semconv.URLQueryKey, r.Query)
	a.text(semconv.HTTPRouteKey, r.Route)
	a.authority(r.Host)
	a.text(semconv.NetworkProtocolVersionKey, r.Proto)
	a.text(semconv.ClientAddressKey, r.Client)
	a.text(semconv.NetworkPeerAddressKey, r.Connected)
	a.text(semconv.UserAgentOriginalKey, r.UserAgent)
	a.number(semconv.HTTPResponseStatusCodeKey, int64(r.Status))
	if r.GRPC {
		a.text(semconv.RPCSystemNameKey, "grpc")
		a.text(semconv.RPCResponseStatusCodeKey, r.GRPCStatus)
	}
	a.text(serviceKey, r.Service)
	a.text(reasonKey, r.Reason)
	a.text(requestIDKey, r.RequestID)
	s := &tracepb.Span{
		TraceId: r.Trace[:], SpanId: r.ID[:], TraceState: r.TraceState, Flags: flags(true),
		Name: nameOf(method, r.Route), Kind: tracepb.Span_SPAN_KIND_SERVER,
		StartTimeUnixNano: nanoseconds(r.Start), EndTimeUnixNano: nanoseconds(r.Start.Add(r.Duration)),
	}
	if r.Continues() {
		s.ParentSpanId = r.Parent[:]
	}
	if r.Failed {
		a.text(semconv.ErrorTypeKey, cmp.Or(r.Reason, r.GRPCStatus, strconv.Itoa(r.Status)))
		s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}
	}
	s.Attributes = a
	return s
}

func (r *Request) attemptSpan(i int) *tracepb.Span {
	attempt := &r.Attempts[i]
	method := methodName(r.Method)
	scheme := "http"
	if attempt.Secure {
		scheme = "https"
	}
	url := scheme + "://" + attempt.Peer + r.Path
	if r.Query != "" {
		url += "?" + r.Query
	}
	host, port := hostPort(attempt.Peer)
	var a attributes
	a.text(semconv.HTTPRequestMethodKey, method)
	if method == otherMethod {
		a.text(semconv.HTTPRequestMethodOriginalKey, r.Method)
	}
	a.text(semconv.URLFullKey, url)
	a.authority(attempt.Peer)
	a.text(semconv.NetworkPeerAddressKey, host)
	a.number(semconv.NetworkPeerPortKey, port)
	a.number(semconv.HTTPResponseStatusCodeKey, int64(attempt.Status))
	a.number(semconv.HTTPRequestResendCountKey, int64(i))
	a.text(serviceKey, r.Service)
	a.text(peerIDKey, attempt.PeerID)
	a.text(outcomeKey, attempt.Outcome)
	a.text(causeKey, attempt.Cause)
	if attempt.Connect > 0 {
		a.float(connectKey, float64(attempt.Connect)/float64(time.Millisecond))
	}
	s := &tracepb.Span{
		TraceId: r.Trace[:], SpanId: attempt.ID[:], ParentSpanId: r.ID[:], TraceState: r.TraceState, Flags: flags(false),
		Name: nameOf(method, ""), Kind: tracepb.Span_SPAN_KIND_CLIENT,
		StartTimeUnixNano: nanoseconds(r.Start.Add(attempt.Start)), EndTimeUnixNano: nanoseconds(r.Start.Add(attempt.Start + attempt.Duration)),
	}
	switch {
	case attempt.Status >= 400:
		a.text(semconv.ErrorTypeKey, strconv.Itoa(attempt.Status))
		s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}
	case !attempt.OK:
		a.text(semconv.ErrorTypeKey, attempt.Outcome)
		s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}
	}
	s.Attributes = a
	return s
}

func nanoseconds(t time.Time) uint64 { return uint64(t.UnixNano()) }

// otherMethod stands for methods that the conventions do not know, so that names of spans
// are few.
const otherMethod = "_OTHER"

func methodName(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY":
		return method
	}
	return otherMethod
}

// nameOf returns the name of a span; route is "" for a client's. A route's path, which is decoded,
// may not be UTF-8.
func nameOf(method, route string) string {
	if method == otherMethod {
		method = "HTTP"
	}
	if route == "" {
		return method
	}
	return method + " " + strings.ToValidUTF8(route, "\ufffd")
}

// attributes are the attributes of a span. Empty texts and zero are left out.
type attributes []*commonpb.KeyValue

// text adds a text, which may be a client's: one that is not UTF-8 would lose the spans of all
// requests that are exported with it.
func (a *attributes) text(key attribute.Key, value string) {
	if value = strings.ToValidUTF8(value, "\ufffd"); value != "" {
		*a = append(*a, &commonpb.KeyValue{Key: string(key), Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}})
	}
}

func (a *attributes) number(key attribute.Key, value int64) {
	if value != 0 {
		*a = append(*a, &commonpb.KeyValue{Key: string(key), Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: value}}})
	}
}

func (a *attributes) float(key attribute.Key, value float64) {
	*a = append(*a, &commonpb.KeyValue{Key: string(key), Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: value}}})
}

// authority adds the server of an authority.
func (a *attributes) authority(authority string) {
	host, port := hostPort(authority)
	a.text(semconv.ServerAddressKey, host)
	a.number(semconv.ServerPortKey, port)
}

// hostPort splits an authority; port is 0 without one.
func hostPort(authority string) (host string, port int64) {
	host = authority
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.HasSuffix(authority, "]") {
		n := int64(0)
		for _, c := range authority[i+1:] {
			if c < '0' || c > '9' || n > math.MaxUint16 {
				return strings.Trim(host, "[]"), 0
			}
			n = 10*n + int64(c-'0')
		}
		host, port = authority[:i], n
	}
	return strings.Trim(host, "[]"), port
}
