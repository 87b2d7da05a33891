package live

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/observe/events"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// documents follows sources of documents. Its methods may be called concurrently, but follow by one
// goroutine.
type documents struct {
	newSource func(y config.Dynamic, before config.Source) Source
	events    *events.Feed
	log       zerolog.Logger
	changed   wake.One // a source has reported something new

	mu sync.Mutex
	// mu guards the fields below.
	paused  bool
	sources []*followed // in the order of the configuration
}

// troubles are what may be wrong with a source, and what is told when it begins and when it is
// over.
var troubles = [...]struct{ fails, works string }{
	{"a source of the configuration cannot be read: what it said last stays in use", "the source of the configuration can be read again"},
	{"a source of the configuration has lost documents: they stay in use", "the source of the configuration lacks nothing any more"},
	{"a source of the configuration has values of instances, and none can be used", "a value of an instance in the source of the configuration can be used, or none is there any more"},
}

// followed is a dynamic source that is followed.
type followed struct {
	spec  config.Dynamic
	first chan struct{}  // closed after the first report
	run   panics.Running // Run of the source

	// The mu of documents guards the fields below.

	memory   Memory
	expiry   *time.Timer          // runs until some of memory ceases to count; nil: nothing does
	said     string               // the revision of the last report, or its error
	reports  uint64               // their number
	known    bool                 // memory has what the source said, not only what it said to an earlier process
	failed   error                // of the last report
	unusable error                // of the last report without an error
	told     [len(troubles)]error // what was told of each
	since    time.Time            // when problem became what it is
}

func newDocuments(newSource func(config.Dynamic, config.Source) Source, feed *events.Feed, log zerolog.Logger) *documents {
	return &documents{newSource: newSource, events: feed, log: log, changed: wake.NewOne()}
}

// follow follows these sources and no others. used are the documents in use.
func (d *documents) follow(ctx context.Context, list []config.Dynamic, used []config.Source) {
	for _, stop := range d.change(ctx, list, used) {
		stop()
	}
}

// change starts to follow the sources that are new, and returns what ends the ones that are not in
// list.
func (d *documents) change(ctx context.Context, list []config.Dynamic, used []config.Source) (ended []func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.sources
	d.sources = nil
	for _, y := range list {
		if d.findLocked(y.Name()) != nil {
			continue
		}
		i := slices.IndexFunc(before, func(f *followed) bool { return f.spec.Name() == y.Name() })
		if i >= 0 && reflect.DeepEqual(before[i].spec, y) {
			d.sources = append(d.sources, before[i])
			before = slices.Delete(slices.Clone(before), i, i+1)
			continue
		}
		f := &followed{spec: y, first: make(chan struct{}), memory: Memory{Empties: y.Empties(), State: stateOf(y, used)}}
		if i >= 0 { // another setting of the same source
			f.known, f.memory.State = before[i].known, before[i].memory.State
		}
		d.sources = append(d.sources, f)
	}
	for _, f := range before {
		ended = append(ended, f.run.Detach())
		f.expireAt(time.Time{}, nil)
	}
	for _, f := range d.sources {
		if !f.run.Runs() && !d.paused {
			d.startLocked(ctx, f)
		}
	}
	return ended
}

// startLocked starts to follow f. The caller holds d.mu.
func (d *documents) startLocked(ctx context.Context, f *followed) {
	source := d.newSource(f.spec, f.memory.State)
	if files, ok := source.(*Files); ok {
		files.Seen = func() (string, uint64) { return d.lastOf(f) }
	}
	f.run.Begin(ctx, panics.Watch, func(ctx context.Context) {
		_ = source.Run(ctx, func(r Report) { d.report(f, r) }) // ends with ctx
	})
}

// report takes a report of f.
func (d *documents) report(f *followed, r Report) {
	d.mu.Lock()
	defer d.mu.Unlock()
	news := r.Err == nil || !wake.Closed(f.first)
	f.reports++
	if f.failed = r.Err; r.Err != nil {
		f.said = r.Err.Error()
	} else {
		f.said, f.known, f.unusable = r.Said.Revision, true, r.Unusable
		f.expireAt(f.memory.Take(r, time.Now()), func() { d.expire(f) })
	}
	d.stateLocked(f)
	if !wake.Closed(f.first) {
		close(f.first)
	}
	if news {
		d.changed.Send()
	}
}

// lastOf returns the revision of the last report of f, or its error, and the number of reports.
func (d *documents) lastOf(f *followed) (said string, reports uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return f.said, f.reports
}

// stateLocked tells what is wrong with f now, and was not when it was told last, and what is over.
func (d *documents) stateLocked(f *followed) {
	name, failed := f.spec.Name(), f.problem() != nil
	for i, now := range [len(troubles)]error{f.failed, f.memory.Problem(), f.unusable} {
		text := troubles[i]
		switch before := f.told[i]; {
		case now != nil && before == nil:
			d.log.Warn().Err(now).Str("source", name).Msg(text.fails)
			d.events.Add(events.Event{Kind: events.KindSourceFails, Level: events.Warning, Text: fmt.Sprintf("%s: %s: %v", name, text.fails, now)})
		case now == nil && before != nil:
			d.log.Info().Str("source", name).Msg(text.works)
			d.events.Add(events.Event{Kind: events.KindSourceWorks, Text: fmt.Sprintf("%s: %s", name, text.works)})
		}
		f.told[i] = now
	}
	if failed != (f.problem() != nil) || f.since.IsZero() {
		f.since = time.Now()
	}
}

// problem is why the documents of f are not known, or not all there, or what else cannot be used;
// nil: all is well.
func (f *followed) problem() error { return cmp.Or(f.told[:]...) }

var errNoAnswer = errors.New("no answer yet")

// stale is problem, or that the source has said nothing yet; nil: its documents are known.
func (f *followed) stale() error {
	if problem := f.problem(); problem != nil || f.known {
		return problem
	}
	return errNoAnswer
}

// expire removes what f has lost long ago, unless it cannot be read now: then its next report does.
func (d *documents) expire(f *followed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.failed != nil || !slices.Contains(d.sources, f) {
		return
	}
	f.expireAt(f.memory.Expire(time.Now()), func() { d.expire(f) })
	d.stateLocked(f)
	d.changed.Send()
}

// expireAt makes expire be called at a time; zero: never. The mu of documents guards it.
func (f *followed) expireAt(at time.Time, expire func()) {
	if f.expiry != nil {
		f.expiry.Stop()
		f.expiry = nil
	}
	if !at.IsZero() {
		f.expiry = time.AfterFunc(max(time.Until(at), time.Millisecond), func() {
			defer panics.Contain(panics.Task, nil)
			expire()
		})
	}
}

// stateOf returns what a source said last, to this process or to an earlier one.
func stateOf(y config.Dynamic, used []config.Source) config.Source {
	for _, s := range used {
		if s.Name == y.Name() {
			return s.LastSaid()
		}
	}
	return config.Source{Name: y.Name(), Kind: y.Kind()}
}

func (d *documents) findLocked(name string) *followed {
	i := slices.IndexFunc(d.sources, func(f *followed) bool { return f.spec.Name() == name })
	if i < 0 {
		return nil
	}
	return d.sources[i]
}

// latest returns what each source said last.
func (d *documents) latest() []config.Source {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []config.Source
	for _, f := range d.sources {
		if f.known {
			list = append(list, f.memory.State)
		}
	}
	return list
}

// await waits until each source has reported, at most for timeout, and returns the names of
// the ones that have not.
func (d *documents) await(ctx context.Context, timeout time.Duration) (silent []string) {
	d.mu.Lock()
	sources := slices.Clone(d.sources)
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, f := range sources {
		select {
		case <-f.first:
		case <-ctx.Done():
			if !wake.Closed(f.first) {
				silent = append(silent, f.spec.Name())
			}
		}
	}
	return silent
}

// missing returns the sources that have never said anything and have no documents in use, with
// reasons.
func (d *documents) missing(used []config.Source) (missing []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.sources {
		if f.known || slices.ContainsFunc(used, func(s config.Source) bool { return s.Name == f.spec.Name() }) {
			continue
		}
		missing = append(missing, fmt.Sprintf("dynamic source %s: %v", f.spec.Name(), f.stale()))
	}
	return missing
}

// reread reads the files again: somebody has asked for it.
func (d *documents) reread() {
	d.mu.Lock()
	sources := slices.Clone(d.sources)
	d.mu.Unlock()
	for _, f := range sources {
		if f.spec.Kind() == config.KindFile {
			said, err := config.ReadFiles(f.spec.File)
			d.report(f, Report{Said: said, Err: err})
		}
	}
}

// end stops following.
func (d *documents) end() {
	d.follow(context.Background(), nil, nil)
}

// pause stops following until resume: a new process follows the sources.
func (d *documents) pause() {
	for _, end := range d.beginPause() {
		end()
	}
}

// beginPause returns what ends the sources.
func (d *documents) beginPause() (ends []func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paused = true
	for _, f := range d.sources {
		ends = append(ends, f.run.Detach())
	}
	return ends
}

// resume ends pause. The next follow starts the sources.
func (d *documents) resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paused = false
}

func (d *documents) isPaused() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.paused
}
