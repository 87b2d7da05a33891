package discovery

import (
	"context"
	"time"
)

// RefusedError is an error that concerns the query or the permissions of one service,
// not the health of the registry. A retry helps only after a change of configuration.
type RefusedError struct{ Err error }

func (e RefusedError) Error() string { return e.Err.Error() }

// Unwrap is for errors.Is.
func (e RefusedError) Unwrap() error { return e.Err }

// Refusal returns err, as a RefusedError if refused.
func Refusal(err error, refused bool) error {
	if refused {
		return RefusedError{Err: err}
	}
	return err
}

// Report is the result of a query of a source. It is immutable.
type Report struct {
	// Set is the full set of instances, in any order. Known says that there is a set,
	// which may be empty.
	Set      []Instance
	Known    bool
	Endpoint string // the origin of Set, such as the agent that answered; may be empty
	Index    uint64 // of the answer; 0 if the registry has none

	// Partial says that Set lacks a part of the service that has not answered yet. Without an
	// instance in service it replaces none.
	Partial bool

	// Restored is as in WatchStatus, if the registry has not confirmed Set yet; else zero.
	Restored time.Time

	// Answered is when the registry last answered about Set, if Set comes with an Err; zero: now.
	Answered time.Time

	// Err says that a query failed or that its answer is not trusted. Together with a
	// Set it concerns a part of the service that Set lacks, or all of it with Restored.
	Err error

	// Memory is what the source knows beside Set; nil: nothing new.
	Memory []Memory

	// Invalid lists the entries of the registry that cannot be used, with a Set; sorted by key.
	Invalid []Invalid

	// Reset says that the registry has lost its state, or is back at an earlier one.
	Reset bool
}

// Invalid is an entry of a registry that cannot be used.
type Invalid struct {
	Key    string `json:"key"` // of the entry in the registry
	Reason string `json:"reason"`
	InUse  bool   `json:"in_use"` // an earlier value of the entry is in use

	tooLong bool // it exceeds the bounds
}

// ServiceNamer is a [Source] whose registry names the service of each instance. With other sources,
// it is the service that is watched.
type ServiceNamer interface{ NamesServices() }

// Addressed is a [Source] whose name does not say where its registry is. Other addresses are
// another registry: what a service of another name knows is then not used.
type Addressed interface{ Addresses() string }

// Source finds the instances of one service.
//
// Run reports until ctx ends and returns ctx's error; it returns early only if it can
// never succeed. It reports full sets, which may be unchanged. It must not report an
// error, a timeout or an untrusted answer as an empty set, but as an error without a
// set. A [Watcher] decides which instances an answer may take out of service.
//
// before is the state in use of a source with the same name, such as an earlier run, or else a
// saved one; without a set if there is none. report does not block and is safe for concurrent
// use; a source learns nothing from it.
//
// The name of a Source in statuses and logs is its String method, if it has one.
type Source interface {
	Run(ctx context.Context, before WatchState, report func(Report)) error
}
