package proxy

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"sluice/balancer"
	"sluice/observe/metrics"
	"sluice/proxy/http1"
	"sluice/proxy/transfer"
)

// A grpcCode is a status code of gRPC, or grpcUnset.
type grpcCode int

const (
	grpcUnset              grpcCode = -1 // there is no status
	grpcUnknown            grpcCode = 2
	grpcDeadlineExceeded   grpcCode = 4
	grpcPermissionDenied   grpcCode = 7
	grpcResourceExhausted  grpcCode = 8
	grpcFailedPrecondition grpcCode = 9
	grpcUnimplemented      grpcCode = 12
	grpcInternal           grpcCode = 13
	grpcUnavailable        grpcCode = 14
	grpcUnauthenticated    grpcCode = 16
)

// grpcHTTPStatus has the HTTP status that means the same as a code to Envoy's outlier
// detection and to google.rpc.Code.
var grpcHTTPStatus = [metrics.NumGRPCCodes]int{
	200, metrics.StatusClientClosedRequest, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
}

// String returns the name of the code, the number of an unknown one, or "".
func (c grpcCode) String() string {
	if c == grpcUnset {
		return ""
	}
	return metrics.GRPCName(int(c))
}

// httpStatus returns the HTTP status that means the same. Clients take an unknown code
// for UNKNOWN.
func (c grpcCode) httpStatus() int {
	if int(c) >= len(grpcHTTPStatus) {
		c = grpcUnknown
	}
	return grpcHTTPStatus[c]
}

// asksForGRPC reports whether the request is a call of gRPC as far as its head says.
func (x *httpExchange) asksForGRPC() bool {
	return x.head.GRPC && x.head.Method == http1.MethodPost && x.client.isHTTP2 && !x.upgrade
}

// noteCall notes that a request whose head cannot be scanned is a call of gRPC, if it is.
func (x *httpExchange) noteCall(method, contentType []byte) {
	if string(method) == "POST" && http1.IsGRPC(contentType) {
		x.head.Method, x.head.GRPC = http1.MethodPost, true
	}
}

// contentTypeOf returns the Content-Type in text, a head that cannot be scanned.
func contentTypeOf(text []byte) []byte {
	for line := range http1.TrailerLines(text) {
		if name, value, _ := bytes.Cut(line, colon); http1.EqualFold(name, "content-type") {
			return bytes.Trim(value, " \t\r\n")
		}
	}
	return nil
}

// parseGRPCCode returns the code in the value of a grpc-status field; nil: there is none.
func parseGRPCCode(value []byte) grpcCode {
	if value == nil {
		return grpcUnset
	}
	code, err := strconv.ParseUint(string(value), 10, 16)
	if err != nil {
		return grpcUnknown
	}
	return grpcCode(code)
}

// grpcCodeOfTrailer returns the code in a trailer section.
func grpcCodeOfTrailer(section []byte) grpcCode {
	for line := range http1.TrailerLines(section) {
		if name, value, _ := bytes.Cut(line, colon); http1.EqualFold(name, "grpc-status") {
			return parseGRPCCode(bytes.Trim(value, " \t\r\n"))
		}
	}
	return grpcUnset
}

// grpcOutcome returns the outcome of a call after its whole response was forwarded, given
// the outcome by the HTTP status.
//
// A failure of the peer is a code that means a status of 500 or more, as in Envoy, but
// not UNIMPLEMENTED: one client that calls a wrong method would eject every peer. Nor
// does DEADLINE_EXCEEDED count if the client has set the deadline. An answer without gRPC's
// content type is that of a server that has no gRPC: clients can send calls to any server.
func (x *httpExchange) grpcOutcome(o balancer.Outcome) balancer.Outcome {
	if x.grpcCode == grpcUnset {
		if x.response.Status == 200 {
			x.grpcCode = grpcUnknown // as for the client
			if x.response.GRPC {     // a gRPC server always sends a code
				o.Class = balancer.OutcomeReset
			}
		}
		return o
	}
	switch {
	case x.grpcCode.httpStatus() < 500, x.grpcCode == grpcUnimplemented,
		x.grpcCode == grpcDeadlineExceeded && !x.deadline.IsZero():
	default:
		o.Class, o.Status = balancer.OutcomeServerError, x.grpcCode.httpStatus()
	}
	return o
}

// grpcTimeout returns the value of a grpc-timeout field, at most what 8 digits of seconds
// express. ok: it is well-formed.
func grpcTimeout(value []byte) (timeout time.Duration, ok bool) {
	const maxDigits, longest = 8, 99_999_999 * time.Second
	n := len(value) - 1
	if n < 1 || n > maxDigits {
		return 0, false
	}
	var unit time.Duration
	switch value[n] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	count := int64(0)
	for _, c := range value[:n] {
		if c < '0' || c > '9' {
			return 0, false
		}
		count = count*10 + int64(c-'0')
	}
	if count > int64(longest/unit) {
		return longest, true
	}
	return time.Duration(count) * unit, true
}

// appendGRPCTimeout appends a timeout of at least d as the value of a grpc-timeout field,
// with at most 8 digits. It is never 0.
func appendGRPCTimeout(out []byte, d time.Duration) []byte {
	const most = 99_999_999
	unit, letter := time.Microsecond, byte('u')
	switch {
	case d > most*time.Millisecond:
		unit, letter = time.Second, 'S'
	case d > most*time.Microsecond:
		unit, letter = time.Millisecond, 'm'
	}
	d = max(d, 1)
	return append(strconv.AppendInt(out, min(int64((d-1)/unit)+1, most), 10), letter)
}

// setDeadline sets the deadline of a gRPC call with grpc-timeout, or returns the refusal of
// one that is over already, or malformed: the peer would fail, by an act of the client. b is
// the head.
func (x *httpExchange) setDeadline(b []byte) *refusal {
	if !x.standing.grpc || !x.head.Has(http1.NameGRPCTimeout) {
		return nil
	}
	timeout, ok := grpcTimeout(x.sentOnce(http1.NameGRPCTimeout))
	switch {
	case !ok:
		return refusalGRPCTimeout
	case timeout == 0:
		return refusalDeadline
	}
	x.deadline = x.startTime.Add(timeout)
	return nil
}

// deadlinePassed reports whether the client's deadline is over. The peer knows it too, and
// may reset the stream first.
func (x *httpExchange) deadlinePassed() bool {
	return !x.deadline.IsZero() && !time.Now().Before(x.deadline)
}

// withinDeadline returns timeout, or the time until the deadline if that is less; it is
// positive then. A timeout of 0 is none. It records which of both applies, for the wait
// for the peer that begins.
func (x *httpExchange) withinDeadline(timeout time.Duration) time.Duration {
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

// bodyPause returns the timeout of a pause in the response's body. A stream of gRPC may be
// silent as long as a tunnel.
func (x *httpExchange) bodyPause() time.Duration {
	pause := x.service.Timeouts.Idle
	if x.standing.grpc {
		pause = max(pause, x.service.Timeouts.Tunnel)
	}
	return x.withinDeadline(pause)
}

// grpcCode returns the code that gRPC clients get instead of the refusal's HTTP status.
func (r *refusal) grpcCode() grpcCode {
	switch r {
	case refusalNoRoute:
		return grpcUnimplemented
	case refusalTooManyConnections, refusalNoDescriptors, refusalSaturated, refusalPeersFull, refusalConnectionsFull, refusalPending:
		return grpcResourceExhausted
	case refusalBadResponse, refusalLongResponse, refusalInternal:
		return grpcInternal
	}
	switch r.status {
	case 301, 302, 303, 307, 308:
		return grpcFailedPrecondition
	case 400:
		return grpcInternal // as gRPC's clients
	case 401:
		return grpcUnauthenticated
	case 403:
		return grpcPermissionDenied
	case 408, 504:
		return grpcDeadlineExceeded
	case 413, 414, 429, 431:
		return grpcResourceExhausted
	case 502, 503:
		return grpcUnavailable
	}
	return grpcUnknown
}

// appendGRPCStatus appends the field lines of a status that sluice generates.
func appendGRPCStatus(out []byte, code grpcCode, reason, message string) []byte {
	out = append(out, "grpc-status: "...)
	out = strconv.AppendInt(out, int64(code), 10)
	out = append(out, "\r\ngrpc-message: "...)
	for _, c := range []byte(message) {
		if c < ' ' || c > '~' || c == '%' {
			out = fmt.Appendf(out, "%%%02X", c)
		} else {
			out = append(out, c)
		}
	}
	return append(append(append(out, "\r\nx-sluice-reason: "...), reason...), "\r\n"...)
}

// appendGRPCAnswer appends the response to a gRPC call for r: a status without a body.
// lines are more field lines.
func appendGRPCAnswer(out []byte, r *refusal, lines []byte) []byte {
	out = append(out, "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n"...)
	out = append(out, lines...)
	return append(appendGRPCStatus(out, r.grpcCode(), r.reason, r.text), "\r\n"...)
}

// endGRPC ends an interrupted response to a gRPC call with a status: the client would
// otherwise learn only that the stream was reset.
func (x *httpExchange) endGRPC(code grpcCode) {
	if !x.standing.grpc || !x.head.TETrailers {
		return
	}
	x.grpcCode = code
	trailer := appendGRPCStatus(nil, code, x.interrupted, "the response is incomplete")
	x.Out = x.Out[:0]
	// An error means that the client is gone too.
	_ = x.client.downstream.WriteBody(&x.Buffers, transfer.Piece{Last: true, Trailer: append(trailer, "\r\n"...)})
}

// statusForMetrics returns the HTTP status that describes the result of the request: for a
// gRPC call, the one that means the same as its code.
func (x *httpExchange) statusForMetrics() int {
	if x.grpcCode == grpcUnset || x.status != 200 {
		return x.status
	}
	return x.grpcCode.httpStatus()
}
