package live

import (
	"context"

	"sluice/config"
)

// Report is the documents of a source, or why they are not known.
type Report struct {
	Said config.Source // if Err is nil, without what the source has lost
	// Forgot says that the source may have lost its state since the last report without an
	// error: what is missing now may be lost.
	Forgot bool
	// Deleted says that the source has seen each document that is missing being deleted.
	Deleted bool
	// Unusable is why nothing of what Said has beside documents can be used; nil: something can, or
	// there is nothing.
	Unusable error
	// Err is why the documents are not known, or must not be believed. Those of the last
	// report without an error stay in use.
	Err error
}

// Source is a source of documents.
type Source interface {
	// Run follows the source until ctx ends, and returns ctx's error. It calls report, one
	// call at a time, with the documents of the source at first, after each change and after each
	// failure; also several times with the same. A [Memory] decides what a report removes.
	Run(ctx context.Context, report func(Report)) error
}
