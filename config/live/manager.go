package live

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/observe/events"
	"sluice/observe/wake"
)

// Manager keeps the documents that make the configuration: the file, and what the sources say that
// it names. It chooses which new documents are used, applies the configuration that they make by
// one function, and keeps the history with its pins.
//
// Load makes it, Connect says what it works with, Begin records the first configuration, and Run
// follows the documents, while WatchFile follows the file. Each of them is called once, in this
// order. Until Run, one goroutine uses it; from then on its other methods may be called
// concurrently.
type Manager struct {
	input     config.Input
	pipe      bool // the file is read once
	options   Options
	history   config.History
	documents *documents
	refusals  refusals

	first   firstConfiguration
	started *config.Config // the first configuration, with the values in use of keys that need a restart

	seen atomic.Pointer[reading] // the last one of the file

	reload  wake.One // a reload is requested
	again   wake.One // the configuration in use must be applied again
	orders  chan func(context.Context)
	settled chan struct{} // see Settled
	ended   chan struct{} // closed when Run has ended

	// Of the goroutine of Run.

	file    config.Source
	fileErr error            // why the file cannot be read
	offered []config.Dynamic // the sources that the file names
	alone   *config.Built    // of the file just read without its sources; nil: built again
	notes   string           // the latest warnings about the configuration, as logged
	answers time.Duration    // see Run
	applied *config.Config   // by the last call of Apply; nil: the first. In a pause the history may lack it
}

// reading is a reading of the file.
type reading struct {
	revision string
	number   uint64
}

// Options are what a Manager works with. All are required.
type Options struct {
	// NewSource returns the source of a key of "dynamic". before is what it said last, to this
	// process or to an earlier one.
	NewSource func(y config.Dynamic, before config.Source) Source
	// Apply changes the program to c, and returns the configuration in use: c with what other
	// parts have added. After an error nothing has changed. One call at a time is made.
	Apply func(ctx context.Context, c *config.Config) (inUse *config.Config, err error)
	// Again applies c, the configuration in use, again: see Manager.Again. If it returns false, it
	// is called again later. No call of Apply is made meanwhile.
	Again func(ctx context.Context, c *config.Config) bool
	// Applied is called with each revision that comes into use.
	Applied func(config.Revision)
	// Settled is called once, when all sources have said something and it is in use.
	Settled func()
	// Reload is called before each reload that somebody has asked for; what it returns is called
	// after it.
	Reload func() (done func())
	// Order calls f, which does not wait for anything, if this process takes orders; else it
	// returns why not.
	Order func(f func() error) error

	Events *events.Feed
	Log    zerolog.Logger
}

// Load reads the file, the files with documents that it names, and the history, and chooses the
// first configuration. It fails if the file is not valid.
func Load(in config.Input) (*Manager, error) {
	if in.Decoded == nil {
		in.Decoded = new(config.Decoded)
	}
	m := &Manager{
		input: in, pipe: in.IsPipe(),
		reload: wake.NewOne(), again: wake.NewOne(), orders: make(chan func(context.Context)), settled: make(chan struct{}),
		ended: make(chan struct{}),
	}
	if err := m.readFirst(); err != nil {
		return nil, err
	}
	m.started = m.first.built.Config
	return m, nil
}

// Connect sets what m works with. No source is followed before Run.
func (m *Manager) Connect(o Options) {
	m.options = o
	m.documents = newDocuments(o.NewSource, o.Events, o.Log)
}

// History returns the revisions. Its methods may be called concurrently.
func (m *Manager) History() *config.History { return &m.history }

// Reload requests that the configuration is loaded again and applied. After an error nothing
// changes, and the log, the history and the feed report it.
//
// Reload does not wait for the reload, which may take seconds. Requests during a reload cause one
// more reload.
func (m *Manager) Reload() { m.reload.Send() }

// Reapply requests that the configuration in use is applied again, as what others add to it has
// changed. It does not wait for that.
func (m *Manager) Reapply() { m.again.Send() }

// Pause ends following the sources until Resume: another process follows them. Nothing is recorded
// meanwhile.
func (m *Manager) Pause() { m.documents.pause() }

// Resume ends Pause, and reloads.
func (m *Manager) Resume() {
	m.documents.resume()
	m.Reload()
}

// Paused reports whether another process follows the sources, and has the history.
func (m *Manager) Paused() bool { return m.documents.isPaused() }

// Missing returns the sources that have never said anything and have no documents in use, with
// reasons.
func (m *Manager) Missing() []string { return m.documents.missing(m.history.Current().Sources) }

// Settled returns a channel that is closed when all sources have said something, and it is in use.
func (m *Manager) Settled() <-chan struct{} { return m.settled }

// Run follows the sources, and carries out what is requested, one at a time, until ctx ends. A
// reload waits for new sources, at most for the time answers; what is refused is tried again after
// the time retry.
func (m *Manager) Run(ctx context.Context, answers, retry time.Duration) {
	m.answers = answers
	defer m.documents.end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var retried <-chan time.Time // nil: nothing is refused
	for {
		if retried == nil && m.Refuses() { // a file that it names may be there later
			retried = time.After(retry)
		}
		m.follow(ctx)
		select {
		case <-m.reload:
			m.reloadNow(ctx)
			continue
		case <-m.documents.changed:
			m.applyLatest(ctx, false)
			continue
		case <-retried:
			retried = nil
			if m.fileErr != nil && m.readable() { // the watcher may have read it, and sees no change
				m.Reload()
				continue
			}
			m.applyLatest(ctx, false)
			continue
		case carryOut := <-m.orders:
			carryOut(ctx)
			continue
		case <-m.again:
		case <-timer.C:
		case <-ctx.Done():
			close(m.ended)
			return
		}
		if m.options.Again(ctx, cmp.Or(m.applied, m.history.Current().Config)) {
			timer.Stop()
		} else {
			timer.Reset(retry)
		}
	}
}

// WatchFile reloads after each change of the configuration file, until ctx ends. There must be one.
// A pipe has none.
func (m *Manager) WatchFile(ctx context.Context) {
	if m.pipe {
		return
	}
	w := config.Watcher{
		File:    m.input.File,
		Seen:    func() (string, uint64) { last := m.seen.Load(); return last.revision, last.number },
		Changed: m.Reload,
		Problem: func(err error) {
			m.options.Log.Warn().Err(err).Str("file", m.input.File).
				Msg("the file system does not report changes: sluice reads the configuration file every 10 seconds")
		},
	}
	w.Run(ctx)
}

func (m *Manager) reloadNow(ctx context.Context) {
	defer m.options.Reload()()
	m.notes = "" // who asks for a reload sees the warnings again
	if m.Paused() {
		return // no source would answer
	}
	m.readFile()
	m.follow(ctx)
	// Always: a reload during a pause may have read the file, and not have waited for the sources
	// that are new in it.
	if silent := m.documents.await(ctx, m.answers); len(silent) > 0 {
		m.options.Log.Warn().Strs("sources", silent).Stringer("waited", m.answers).Msg("dynamic sources have not answered yet")
	}
	m.documents.reread()
	m.applyLatest(ctx, true)
}

// readFile reads the configuration file. To open a pipe again would wait for a writer, and orders
// and a stop for that.
func (m *Manager) readFile() {
	if m.pipe {
		return
	}
	text, err := m.input.Read()
	if m.fileErr = err; err != nil {
		return
	}
	file := m.input.FileSource(text)
	m.seen.Store(&reading{file.Revision, m.seen.Load().number + 1})
	if file.Revision == m.file.Revision {
		return
	}
	m.file = file
	if built, err := m.input.Build([]config.Source{file}); err == nil {
		m.alone, m.offered = built, built.Config.Dynamic
	}
}

// readable reports whether the configuration file can be read now.
func (m *Manager) readable() bool {
	_, err := m.input.Read()
	return err == nil
}

// follow follows the sources that the file names, and the sources in use. Once all of them have
// reported, and nothing waits to be applied, all is settled.
func (m *Manager) follow(ctx context.Context) {
	current := m.history.Current()
	m.documents.follow(ctx, slices.Concat(m.offered, current.Config.Dynamic), current.Sources)
	if !wake.Closed(m.settled) && len(m.documents.changed) == 0 && len(m.documents.await(ctx, 0)) == 0 {
		close(m.settled)
		m.options.Settled()
	}
}

// applyLatest applies what the file and the sources say, as far as it is valid. With
// reload, somebody has asked for it.
func (m *Manager) applyLatest(ctx context.Context, reload bool) {
	alone := m.alone
	m.alone = nil
	if m.Paused() {
		return // a new process takes over
	}
	current := m.history.Current()
	used, number := current.Sources, current.Number
	latest := slices.Insert(m.documents.latest(), 0, m.file)
	errs := config.ChooseDocuments(config.Wanted(latest, used), used, func(sources []config.Source) (err error) {
		built := alone
		if alone == nil || len(sources) > 1 || sources[0].Pin != nil {
			if built, err = m.input.Build(sources); err != nil {
				return err
			}
		}
		return m.apply(ctx, built, sources)
	})
	if reload && len(errs) == 0 && m.fileErr == nil && m.history.Current().Number == number {
		m.options.Log.Info().Str("source", m.input.Source()).Msg("configuration unchanged")
	}
	if m.fileErr != nil {
		if errs == nil {
			errs = make(map[string]error)
		}
		errs[m.file.Name] = m.fileErr
	}
	m.refuse(errs, reload)
}
