package balancer

import "time"

// OutcomeClass is the result of an attempt, as far as the peer is concerned.
type OutcomeClass uint8

const (
	// OutcomeOK: the peer answered, with any status below 500.
	OutcomeOK OutcomeClass = iota
	// OutcomeServerError: the peer answered with a 5xx status.
	OutcomeServerError
	// OutcomeConnectFailure: no connection could be made.
	OutcomeConnectFailure
	// OutcomeTimeout: the peer did not answer in time.
	OutcomeTimeout
	// OutcomeReset: the peer closed the connection, or sent something that is not a
	// response.
	OutcomeReset
	// OutcomeStale: a reused connection was closed before any answer, or one on which the peer may
	// have waited for the client. That is normal as long as it is detected at once and happens
	// rarely.
	OutcomeStale
	// OutcomeClientGone: the client left before the peer answered, or may be the
	// cause that the peer did not.
	OutcomeClientGone
	// OutcomeSuperseded: another peer is asked instead because this one is failing. Latency is the
	// time waited for this one.
	OutcomeSuperseded
	// OutcomeLocal: a local limit stopped the attempt before it reached the peer, or sluice has cut
	// it.
	OutcomeLocal
	// OutcomeDenied: the mesh does not let sluice connect to the peer.
	OutcomeDenied
	// OutcomeRefused: the peer answered with a status, and sluice does not pass the answer on,
	// because of one of its fields. A client may be the cause: so it is no failure of the peer.
	OutcomeRefused

	// NumOutcomes is the number of classes; they count from 0.
	NumOutcomes = int(OutcomeRefused) + 1
)

var outcomeNames = [NumOutcomes]string{
	"ok", "server error", "connect failure", "timeout", "reset", "stale connection", "client gone", "superseded", "local limit", "denied", "refused answer",
}

func (c OutcomeClass) String() string { return outcomeNames[c] }

// Failure reports whether the outcome counts as a failure of the peer.
func (c OutcomeClass) Failure() bool {
	const failures = 1<<OutcomeServerError | 1<<OutcomeConnectFailure | 1<<OutcomeTimeout | 1<<OutcomeReset
	return 1<<c&failures != 0
}

// Outcome is the result of one attempt.
type Outcome struct {
	Class OutcomeClass
	// Status is the peer's status code, 0 without an answer.
	Status int
	// Latency is the time from the pick to the response header, to the failure, until the
	// client left, or for a TCP stream to the established connection. 0: not measured.
	Latency time.Duration
	Details // Outcome has four words in four fields, so that it stays in registers
}

// Details are what else is known of an attempt. They take one word.
type Details struct {
	// Shared says that another attempt reports the same failure of the peer, which counts once for
	// its health and its latency.
	Shared bool
	// Absent: the host of the peer has answered that no program listens at its address.
	Absent bool
	// Answered: [Token.Answered] or [Token.Connected] was called.
	Answered bool
	// Endpoint is the same number for requests that should take any peer equally long; 0: not
	// known. A peer is as slow as its latencies are by comparison with those of the same endpoint,
	// whichever peer has answered.
	Endpoint uint32
}
