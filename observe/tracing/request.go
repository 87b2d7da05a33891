package tracing

import "time"

// A Span is the place of a request in its trace.
type Span struct {
	Trace   TraceID
	Parent  SpanID // zero: the span is the first of its trace
	ID      SpanID // zero: the request has no span, and is passed on as it came
	Sampled bool   // the span is exported
}

// Continues reports whether the span goes on with a trace of the client.
func (s *Span) Continues() bool { return !s.Parent.IsZero() }

// A Request is a finished request with its attempts, each of which is a span.
type Request struct {
	Span
	TraceState string
	Start      time.Time
	Duration   time.Duration

	Method      string
	Scheme      string // http or https
	Host        string // with its port, as sent
	Path, Query string
	Route       string // path of the route; empty: none
	Proto       string // "1.0", "1.1" or "2"
	Client      string // address
	Connected   string // address that has connected: the client's, or a proxy's
	UserAgent   string
	RequestID   string

	Status     int    // of the response
	GRPC       bool   // the request is a gRPC call
	GRPCStatus string // name of its status; empty: none
	Failed     bool   // the response says that the server failed, or is incomplete
	Reason     string // why sluice answered itself, or cut the response; else empty
	Service    string // empty: none

	Attempts []Attempt
}

// An Attempt is a try with one peer.
type Attempt struct {
	ID       SpanID
	Start    time.Duration // from the start of the request
	Duration time.Duration
	Connect  time.Duration // 0: on an open connection, or unknown
	Secure   bool          // by TLS
	Peer     string        // "host:port"
	PeerID   string        // id of the instance
	Status   int           // 0: there was no response
	Outcome  string        // as in the access log
	OK       bool          // the outcome is no failure of the peer
	Cause    string        // outcome of the attempt before; empty: the first
}
