package refusal

import "sluice/proxy/grpc"

// GRPCCode returns the code that gRPC clients get instead of the refusal's HTTP status.
func (r *Refusal) GRPCCode() grpc.Code {
	switch r {
	case TooManyConnections, NoDescriptors, Saturated, PeersFull, ConnectionsFull, Pending, Overload:
		return grpc.ResourceExhausted
	case BadResponse, LongResponse, Internal:
		return grpc.Internal
	}
	switch r.Status {
	case 301, 302, 303, 307, 308:
		return grpc.FailedPrecondition
	case 400:
		return grpc.Internal // as gRPC's clients
	case 401:
		return grpc.Unauthenticated
	case 403:
		return grpc.PermissionDenied
	case 404:
		return grpc.Unimplemented // as gRPC's clients
	case 408, 504:
		return grpc.DeadlineExceeded
	case 413, 414, 429, 431:
		return grpc.ResourceExhausted
	case 502, 503:
		return grpc.Unavailable
	}
	return grpc.Unknown
}

// AppendGRPC appends the response to a gRPC call for r: a status without a body.
// lines are more field lines.
func AppendGRPC(out []byte, r *Refusal, lines []byte) []byte {
	out = append(out, "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n"...)
	out = append(out, lines...)
	return append(grpc.AppendStatus(out, r.GRPCCode(), r.Reason, r.Text), "\r\n"...)
}
