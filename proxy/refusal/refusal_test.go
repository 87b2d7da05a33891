package refusal

import (
	"testing"

	"google.golang.org/grpc/codes"

	"sluice/test/verify"
)

func TestGRPCCodesOfRefusals(t *testing.T) {
	for r, want := range map[*Refusal]codes.Code{
		NoRoute: codes.Unimplemented, NoPeers: codes.Unavailable, NoEligible: codes.Unavailable,
		Saturated: codes.ResourceExhausted, PeersFull: codes.ResourceExhausted, Pending: codes.ResourceExhausted,
		ConnectionsFull: codes.ResourceExhausted, NoDescriptors: codes.ResourceExhausted,
		Connect: codes.Unavailable, Reset: codes.Unavailable, PeerTLS: codes.Unavailable, NotInMesh: codes.Unavailable,
		Timeout: codes.DeadlineExceeded, Deadline: codes.DeadlineExceeded, BodyTimeout: codes.DeadlineExceeded,
		BadResponse: codes.Internal, Loop: codes.Internal,
		New(401, "token_expired", ""): codes.Unauthenticated, New(403, "token_denied", ""): codes.PermissionDenied,
		New(404, "direct_response", ""): codes.Unimplemented, NoRoute.With("Vary", "Origin"): codes.Unimplemented,
	} {
		verify.Equal(t, codes.Code(r.GRPCCode()), want, "%s", r.Reason)
	}
}
