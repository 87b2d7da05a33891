package metrics

import (
	"strconv"
	"sync/atomic"
)

// NumGRPCCodes is the number of status codes of gRPC; they count from 0.
const NumGRPCCodes = 17

// unknownGRPCCode is what clients take any other code for.
const unknownGRPCCode = 2

var grpcNames = [NumGRPCCodes]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
	"DATA_LOSS", "UNAUTHENTICATED",
}

// GRPCName returns the name of a status code of gRPC, or the number of an unknown one.
func GRPCName(code int) string {
	if code >= 0 && code < NumGRPCCodes {
		return grpcNames[code]
	}
	return strconv.Itoa(code)
}

// grpcShard is one copy of the counters of calls by code. Its size is a multiple of a cache
// line.
type grpcShard struct {
	calls [NumGRPCCodes]atomic.Uint64
	_     [192 - NumGRPCCodes*8]byte
}

// ObserveGRPC counts a gRPC call that ended with this status code; unknown ones count as
// UNKNOWN. The call counts as a request too: see Observe.
func (r *Requests) ObserveGRPC(shard uint32, code int) {
	if code < 0 || code >= NumGRPCCodes {
		code = unknownGRPCCode
	}
	r.grpc[shard&r.mask].calls[code].Add(1)
}
