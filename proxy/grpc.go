package proxy

import (
	"time"

	"sluice/balancer"
	"sluice/proxy/grpc"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/transfer"
)

// asksForGRPC reports whether the request is a call of gRPC as far as its head says.
func (x *request) asksForGRPC() bool {
	return x.head.GRPC && x.head.Method == http1.MethodPost && x.client.version.hasStreams() && !x.upgrade
}

// setKind sets how to answer a request whose head cannot be scanned: as a call of gRPC, or
// without a body.
func (x *request) setKind(method, contentType []byte) {
	switch {
	case string(method) == "HEAD":
		x.head.Method = http1.MethodHead
	case string(method) == "POST" && http1.IsGRPC(contentType):
		x.head.Method, x.head.GRPC = http1.MethodPost, true
	}
}

// grpcOutcome returns the outcome of a call after its whole response was forwarded, given
// the outcome by the HTTP status.
//
// A failure of the peer is a code that means a status of 500 or more, as in Envoy, but
// not UNIMPLEMENTED: one client that calls a wrong method would eject every peer. Nor
// does DEADLINE_EXCEEDED count if the client has set the deadline. An answer without gRPC's
// content type comes from a server that has no gRPC: clients can send calls to any server.
func (x *answer) grpcOutcome(o balancer.Outcome) balancer.Outcome {
	if x.grpcCode == grpc.Unset {
		if x.response.Status == 200 {
			x.grpcCode = grpc.Unknown // as for the client
			if x.response.GRPC {      // a gRPC server always sends a code
				o.Class = balancer.OutcomeReset
			}
		}
		return o
	}
	switch {
	case x.grpcCode.HTTPStatus() < 500, x.grpcCode == grpc.Unimplemented,
		x.grpcCode == grpc.DeadlineExceeded && !x.request.deadline.IsZero():
	default:
		o.Class, o.Status = balancer.OutcomeServerError, x.grpcCode.HTTPStatus()
	}
	return o
}

// setDeadline sets the deadline of a gRPC call with grpc-timeout, or returns the refusal of
// one that is over already, or malformed: the peer would fail, by an act of the client.
func (x *request) setDeadline() *refusal.Refusal {
	x.deadline = time.Time{}
	if !x.identity.grpc || !x.head.Has(http1.NameGRPCTimeout) {
		return nil
	}
	timeout, ok := grpc.ParseTimeout(x.sentOnce(http1.NameGRPCTimeout))
	switch {
	case !ok:
		return refusal.GRPCTimeout
	case timeout == 0:
		return refusal.Deadline
	}
	x.deadline = x.startTime.Add(timeout)
	return nil
}

// deadlinePassed reports whether the client's deadline is over. The peer knows it too, and
// may reset the stream first.
func (x *request) deadlinePassed() bool {
	return !x.deadline.IsZero() && !time.Now().Before(x.deadline)
}

// withinDeadline returns timeout, or the time until the deadline if that is less; it is
// positive then. A timeout of 0 is none. It records which of both applies, for the wait
// for the peer that begins.
func (x *request) withinDeadline(timeout time.Duration) time.Duration {
	if x.deadline.IsZero() {
		return timeout
	}
	left := max(time.Until(x.deadline), time.Millisecond)
	first := timeout <= 0 || left < timeout
	x.deadlineFirst.Store(first)
	if first {
		return left
	}
	return timeout
}

// endGRPC ends an interrupted response to a gRPC call with a status: the client would
// otherwise learn only that the stream was reset.
func (x *answer) endGRPC(code grpc.Code) {
	if !x.request.identity.grpc || !x.request.head.TETrailers {
		return
	}
	x.grpcCode = code
	trailer := grpc.AppendStatus(nil, code, x.interrupted, "the response is incomplete")
	x.body.buffers.Out = x.body.buffers.Out[:0]
	// An error means that the client is gone too.
	_ = x.request.client.downstream.WriteBody(&x.body.buffers, transfer.Piece{Last: true, Trailer: append(trailer, "\r\n"...)})
}

// statusForMetrics returns the HTTP status that describes the result of the request: for a
// gRPC call, the one that means the same as its code.
func (x *answer) statusForMetrics() int {
	if x.grpcCode == grpc.Unset || x.status != 200 {
		return x.status
	}
	return x.grpcCode.HTTPStatus()
}
