// Package grpc has what a proxy must know of gRPC: its status codes, its timeouts, and how both
// are written. It does no I/O.
package grpc

import (
	"fmt"
	"strconv"

	"sluice/observe/metrics"
	"sluice/proxy/http1"
)

// A Code is a status code of gRPC, or Unset.
type Code int

// The codes that sluice itself gives or tells apart.
const (
	Unset              Code = -1 // there is no status
	Unknown            Code = 2
	DeadlineExceeded   Code = 4
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Unimplemented      Code = 12
	Internal           Code = 13
	Unavailable        Code = 14
	Unauthenticated    Code = 16
)

// httpStatus has the HTTP status that means the same as a code to Envoy's outlier
// detection and to google.rpc.Code.
var httpStatus = [metrics.NumGRPCCodes]int{
	200, metrics.StatusClientClosedRequest, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
}

// String returns the name of the code, the number of an unknown one, or "".
func (c Code) String() string {
	if c == Unset {
		return ""
	}
	return metrics.GRPCName(int(c))
}

// HTTPStatus returns the HTTP status that means the same. c is not Unset. Clients take an
// unknown code for UNKNOWN.
func (c Code) HTTPStatus() int {
	if int(c) >= len(httpStatus) {
		c = Unknown
	}
	return httpStatus[c]
}

// ParseCode returns the code in the value of a grpc-status field; nil: there is none.
func ParseCode(value []byte) Code {
	if value == nil {
		return Unset
	}
	code, err := strconv.ParseUint(string(value), 10, 16)
	if err != nil {
		return Unknown
	}
	return Code(code)
}

// CodeOfTrailer returns the code in a trailer section.
func CodeOfTrailer(section []byte) Code { return ParseCode(http1.TrailerField(section, "grpc-status")) }

// AppendStatus appends the field lines of a status that sluice generates, with its reason.
func AppendStatus(out []byte, code Code, reason, message string) []byte {
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
