// Package file watches the instances of a service in a file. [discovery.ParseValues] defines its
// text.
//
// A file that cannot be read, and one whose text is not valid, change nothing. If a text lacks
// instances that were there, the file is read once more after [settleTime]: a program may be
// writing it. The empty list [] takes all instances out of service.
package file

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"sluice/config/regular"
	"sluice/discovery"
	"sluice/observe/wake"
)

// maxBytes is the maximum length of a file.
const maxBytes = 8 << 20

// settleTime is how long a text that lacks instances must stay the same.
const settleTime = 300 * time.Millisecond

// Options select the instances of a service.
type Options struct {
	Path string
	// Watch calls changed after each change of the file, and once after its start, until
	// ctx ends. Calls of changed do not overlap. After an error, which may be due to a text that
	// was being written, it calls changed again soon also if it sees no change.
	Watch func(ctx context.Context, path string, changed func() error)
}

// NewSource returns a source for a service of sluice. It may run several times, but not
// concurrently.
func NewSource(service string, o Options) discovery.Source {
	return &source{service: service, options: o}
}

type source struct {
	service string
	options Options
}

// String describes the file.
func (s *source) String() string { return fmt.Sprintf("file %q", s.options.Path) }

// Run implements discovery.Source.
func (s *source) Run(ctx context.Context, before discovery.WatchState, report func(discovery.Report)) error {
	// The Guard has no probation: an operator has removed the instances, and the text is whole.
	w := &watch{s, discovery.NewWatcher(discovery.Guard{}, before, report)}
	_ = w.changed(ctx) // Watch begins with another reading
	s.options.Watch(ctx, s.options.Path, func() error { return w.changed(ctx) })
	return ctx.Err()
}

// watch is one run of a source.
type watch struct {
	*source
	*discovery.Watcher
}

// changed reads the file and reports the result.
func (w *watch) changed(ctx context.Context) error {
	set, err := w.read(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		w.Failed(err)
	default:
		w.Accept(discovery.Report{Set: set, Endpoint: w.options.Path}, discovery.Memory{})
	}
	return err
}

// read returns the instances in the file.
func (w *watch) read(ctx context.Context) ([]discovery.Instance, error) {
	text, err := regular.ReadUpTo(w.options.Path, maxBytes)
	for err == nil {
		var list []discovery.Instance
		if list, err = discovery.ParseValues(w.service, text); err != nil {
			err = fmt.Errorf("%s: %w", w.options.Path, err)
			break
		}
		set := discovery.Normalize(list)
		if len(w.Guard.Absent(set)) == 0 {
			return set, nil
		}
		if wake.Await(ctx, time.After(settleTime)) != nil {
			return nil, ctx.Err()
		}
		var again []byte
		if again, err = regular.ReadUpTo(w.options.Path, maxBytes); err == nil && bytes.Equal(again, text) {
			return set, nil
		}
		text = again
	}
	return nil, fmt.Errorf("the file cannot be used, its last usable text stays in use: %w", err)
}
