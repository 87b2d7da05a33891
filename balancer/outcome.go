package balancer

import "time"

// OutcomeClass is how an attempt went, as far as the peer is concerned.
type OutcomeClass uint8

const (
	// OutcomeOK: the peer answered, with any status below 500.
	OutcomeOK OutcomeClass = iota
	// OutcomeServerError: the peer answered with a 5xx status.
	OutcomeServerError
	// OutcomeConnectFailure: no connection could be made.
	OutcomeConnectFailure
	// OutcomeTimeout: the peer did not answer in the time it is allowed.
	OutcomeTimeout
	// OutcomeReset: the peer broke the connection off, or what it sent is not
	// an answer.
	OutcomeReset
	// OutcomeStale: an idle connection turned out to be closed when it was used
	// again, before any answer. That is normal and no fault of the peer, as long
	// as it is found out at once and does not happen again and again.
	OutcomeStale
	// OutcomeClientGone: the client went away before the peer had answered, or
	// something else that it did or left undone may be why the peer did not.
	OutcomeClientGone
	// OutcomeSuperseded: another peer, asked later, answered first, or is asked
	// instead since checks say that this one does not work. Latency is how
	// long this one had been waited for.
	OutcomeSuperseded
	// OutcomeLocal: the attempt failed by a limit of our own and did not reach
	// the peer.
	OutcomeLocal

	// NumOutcomes is the number of classes; they count from 0.
	NumOutcomes = int(OutcomeLocal) + 1
)

var outcomeNames = [NumOutcomes]string{
	"ok", "server error", "connect failure", "timeout", "reset", "stale connection", "client gone", "superseded", "local limit",
}

// String returns the class in lower-case words.
func (c OutcomeClass) String() string {
	if int(c) < len(outcomeNames) {
		return outcomeNames[c]
	}
	return "unknown"
}

// Failure reports whether the outcome speaks against the peer.
func (c OutcomeClass) Failure() bool {
	const failures = 1<<OutcomeServerError | 1<<OutcomeConnectFailure | 1<<OutcomeTimeout | 1<<OutcomeReset
	return 1<<c&failures != 0
}

// Outcome is what became of one attempt.
type Outcome struct {
	Class OutcomeClass
	// Status is what the peer answered, 0 if it did not.
	Status int
	// Latency is the time from the pick to the peer's answer, for HTTP its
	// response header, or to the failure. For a stream that lasts, such as a TCP
	// connection, it is the time until it was established. 0 means that it was
	// not measured.
	Latency time.Duration
}
