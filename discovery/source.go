package discovery

import (
	"context"
	"errors"
)

// ErrRefused marks errors that concern the query or the permissions of one service,
// not the health of the registry. A retry helps only after a change of configuration.
var ErrRefused = errors.New("the registry refuses the query")

// Report is the result of a query of a source. It is immutable.
type Report struct {
	// Set is the full set of instances, in any order. Known says that there is a set,
	// which may be empty.
	Set      []Instance
	Known    bool
	Endpoint string // the origin of Set, such as the agent that answered; may be empty
	Index    uint64 // of the answer; 0 if the registry has none

	// Err says that a query failed or that its answer is not trusted. Together with a
	// Set it concerns a part of the service that Set lacks.
	Err error

	// Memory is what the source knows beside Set; nil: nothing new. In a report without Set
	// and Err it is what the first answer tells: a saved state has precedence if the registry
	// has lost its memory since, or instances of it are on probation.
	Memory []Memory

	// Invalid lists the entries of the registry that cannot be used, with a Set; sorted by
	// key.
	Invalid []Invalid

	// Reset says that the registry has lost its state: its index went backwards.
	Reset bool

	// Doubtful says that a saved set has precedence over the answer: the answer is the
	// first one and has no instance in service.
	Doubtful bool
}

// Invalid is an entry of a registry that cannot be used.
type Invalid struct {
	Key    string // of the entry in the registry
	Reason string
	InUse  bool // an earlier value of the entry is in use
}

// Source finds the instances of one service.
//
// Run reports until ctx ends and returns ctx's error; it returns early only if it can
// never succeed. It reports full sets, which may be unchanged. It must not report an
// error, a timeout or an untrusted answer as an empty set, but as an error without a
// set. A [Guard] decides which instances an answer may take out of service.
//
// report does not block and is safe for concurrent use. It returns the state in use: that of
// the last set of this source or, before its first one, that of a source with the same
// name, which may be a saved one; without a set if there is none. The zero Report only
// returns that state.
//
// The name of a Source in statuses and logs is its String method, if it has one.
type Source interface {
	Run(ctx context.Context, report func(Report) WatchState) error
}
