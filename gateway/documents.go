package gateway

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/admin"
	"sluice/config"
	"sluice/document"
	"sluice/events"
)

// documents follows the dynamic sources of the configuration. Its methods may be called
// concurrently, but follow by one goroutine.
type documents struct {
	newSource func(y config.Dynamic, had bool) document.Source
	events    *events.Feed
	log       zerolog.Logger
	changed   chan struct{} // capacity 1: a source has reported something new

	mu sync.Mutex
	// mu guards the fields below.
	paused  bool
	sources []*followed // in the order of the configuration
}

// followed is a dynamic source that is followed.
type followed struct {
	spec  config.Dynamic
	first chan struct{} // closed after the first report
	stop  func()        // ends Run, and waits for that; nil: it does not run

	// The mu of documents guards the fields below.

	known bool          // said is what the source said last
	said  config.Source // of the last report without an error
	err   error         // of the last report
	since time.Time     // when err became what it is
}

func newDocuments(newSource func(config.Dynamic, bool) document.Source, feed *events.Feed, log zerolog.Logger) *documents {
	return &documents{newSource: newSource, events: feed, log: log, changed: make(chan struct{}, 1)}
}

// follow follows these sources and no others. used are the documents in use.
func (d *documents) follow(ctx context.Context, list []config.Dynamic, used []config.Source) {
	d.mu.Lock()
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
		f := &followed{spec: y, first: make(chan struct{})}
		if i >= 0 { // another setting of the same source
			f.known, f.said = before[i].known, before[i].said
		}
		d.sources = append(d.sources, f)
	}
	var ended []func()
	for _, f := range before {
		if f.stop != nil {
			ended = append(ended, f.stop)
		}
	}
	for _, f := range d.sources {
		if f.stop == nil && !d.paused {
			d.startLocked(ctx, f, used)
		}
	}
	d.mu.Unlock()
	for _, stop := range ended {
		stop()
	}
}

// startLocked starts to follow f. The caller holds d.mu.
func (d *documents) startLocked(ctx context.Context, f *followed, used []config.Source) {
	had := len(f.said.Documents) > 0
	for _, s := range used {
		had = had || s.Name == f.spec.Name() && len(s.Documents) > 0
	}
	source := d.newSource(f.spec, had)
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		_ = source.Run(ctx, func(r document.Report) { d.report(f, r) }) // ends with ctx
	})
	f.stop = func() {
		cancel()
		running.Wait()
	}
}

// report takes a report of f.
func (d *documents) report(f *followed, r document.Report) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := f.spec.Name()
	news := r.Err == nil || !closed(f.first)
	switch {
	case r.Err != nil && f.err == nil:
		d.log.Warn().Err(r.Err).Str("source", name).Msg("a source of the configuration cannot be read: what it said last stays in use")
		d.events.Add(events.Event{Kind: events.KindSourceFails, Level: events.Warning,
			Text: fmt.Sprintf("The source %s of the configuration cannot be read, what it said last stays in use: %v", name, r.Err)})
	case r.Err == nil && f.err != nil:
		d.log.Info().Str("source", name).Msg("the source of the configuration can be read again")
		d.events.Add(events.Event{Kind: events.KindSourceWorks, Text: fmt.Sprintf("The source %s of the configuration can be read again", name)})
	}
	if (r.Err == nil) != (f.err == nil) || f.since.IsZero() {
		f.since = time.Now()
	}
	f.err = r.Err
	if r.Err == nil {
		f.known, f.said = true, r.Said
	}
	if !closed(f.first) {
		close(f.first)
	}
	if !news {
		return
	}
	select {
	case d.changed <- struct{}{}:
	default:
	}
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
			list = append(list, f.said)
		}
	}
	return list
}

// await waits until each source has reported, at most for timeout, and returns the names of
// those that have not.
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
			if !closed(f.first) {
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
		why := "no answer yet"
		if f.err != nil {
			why = f.err.Error()
		}
		missing = append(missing, "dynamic source "+f.spec.Name()+": "+why)
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
			d.report(f, document.Report{Said: said, Err: err})
		}
	}
}

// end stops following.
func (d *documents) end() {
	d.follow(context.Background(), nil, nil)
}

// pause stops following until resume: a new process follows the sources.
func (d *documents) pause() {
	d.mu.Lock()
	d.paused = true
	var ended []func()
	for _, f := range d.sources {
		if f.stop != nil {
			ended = append(ended, f.stop)
			f.stop = nil
		}
	}
	d.mu.Unlock()
	for _, stop := range ended {
		stop()
	}
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

// newDocumentSource returns the source of a key of "dynamic".
func (g *Gateway) newDocumentSource(y config.Dynamic, had bool) document.Source {
	if kv := y.ConsulKV; kv != nil {
		return &document.ConsulKV{
			Client: g.consul, Name: y.Name(), Key: kv.Key, Prefix: kv.Prefix, AllowEmpty: kv.AllowEmpty, Had: had, Wait: g.consulWait,
		}
	}
	if y.Etcd != nil {
		return &document.Etcd{Clusters: g.etcd, Options: etcdCluster(y.Etcd.EtcdCluster), Spec: *y.Etcd, Name: y.Name(), Had: had, Log: g.log}
	}
	return &document.Files{Pattern: y.File, Problem: func(err error) {
		g.log.Warn().Err(err).Str("files", y.File).
			Msg("the file system does not report changes: sluice reads the files every 10 seconds")
	}}
}

// sourceStatuses returns the state of the sources of the configuration in use, and of those
// that a refused file names, for the admin API.
func (g *Gateway) sourceStatuses() []admin.SourceStatus {
	used := g.history.Current().Sources
	refused := g.refusals.all()
	g.documents.mu.Lock()
	defer g.documents.mu.Unlock()
	var list []admin.SourceStatus
	for _, s := range used {
		list = append(list, admin.SourceStatus{Source: s})
	}
	for _, f := range g.documents.sources {
		name := f.spec.Name()
		i := slices.IndexFunc(list, func(s admin.SourceStatus) bool { return s.Source.Name == name })
		if i < 0 {
			list = append(list, admin.SourceStatus{Source: config.Source{Name: name, Kind: f.spec.Kind()}, Unused: true})
			i = len(list) - 1
		}
		s := &list[i]
		s.Offered, s.Since = f.said.Revision, f.since
		if f.err != nil {
			s.Stale = f.err
		} else if !f.known {
			s.Stale = errNoAnswer
		}
	}
	for i := range list {
		if r, ok := refused[list[i].Source.Name]; ok {
			list[i].Refused = &r
		}
	}
	return list
}
