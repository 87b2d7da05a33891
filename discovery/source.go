package discovery

import (
	"context"
	"errors"
)

// ErrRefused is what errors wrap that lie in the query or the permissions of one
// service: its registry is well and does not answer this one. To ask again helps
// only once somebody has changed something.
var ErrRefused = errors.New("the registry refuses the query")

// Source finds the instances of one service.
//
// Run reports to w until ctx ends and returns ctx's error; it returns early
// only when it can never succeed. It reports the full set each time, the
// first one as soon as it is known, and may report a set that did not change.
// It never reports an error, a timeout or an answer it does not trust as an
// empty set: it calls w.Failed and keeps silent about the instances.
//
// A Source that has a String method is named by it in statuses and logs.
type Source interface {
	Run(ctx context.Context, w *Watch) error
}
