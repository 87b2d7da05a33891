package refusal

import (
	"testing"

	"google.golang.org/grpc/codes"
)

func TestGRPCCodesOfRefusals(t *testing.T) {
	for r, want := range map[*Refusal]codes.Code{
		NoRoute: codes.Unimplemented, NoPeers: codes.Unavailable, NoEligible: codes.Unavailable,
		Saturated: codes.ResourceExhausted, PeersFull: codes.ResourceExhausted, Pending: codes.ResourceExhausted,
		ConnectionsFull: codes.ResourceExhausted, NoDescriptors: codes.ResourceExhausted,
		Connect: codes.Unavailable, Reset: codes.Unavailable, PeerTLS: codes.Unavailable,
		Timeout: codes.DeadlineExceeded, Deadline: codes.DeadlineExceeded, BodyTimeout: codes.DeadlineExceeded,
		BadResponse: codes.Internal, Loop: codes.Internal,
	} {
		if got := codes.Code(r.GRPCCode()); got != want {
			t.Errorf("%s: got %v, want %v", r.Reason, got, want)
		}
	}
}
