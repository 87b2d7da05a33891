package live

import (
	"time"

	"sluice/config"
)

// firstConfiguration is the configuration with which this process starts.
type firstConfiguration struct {
	read    map[string]config.Source // what the dynamic files say, by name
	built   *config.Built
	sources []config.Source
	refused map[string]error
}

// readFirst reads the files and the history, and chooses the first configuration. It fails if
// the configuration file is not valid.
func (m *Manager) readFirst() error {
	in := m.input
	text, err := in.Read()
	if err != nil {
		return err
	}
	m.file = in.FileSource(text)
	alone, err := in.Build([]config.Source{m.file})
	if err != nil {
		return err
	}
	m.offered = alone.Config.Dynamic
	m.first.read = make(map[string]config.Source)
	m.seen.Store(&reading{m.file.Revision, 1})
	if path := alone.Config.Live.History; path != "" {
		m.history.Keep(path, func(err error, message string) {
			event := m.options.Log.Info()
			if err != nil {
				event = m.options.Log.Warn().Err(err)
			}
			event.Str("file", path).Msg(message)
		})
	}
	for _, y := range m.offered {
		if y.Kind() != config.KindFile {
			continue
		}
		if s, err := config.ReadFiles(y.File); err == nil { // Run reports an error
			m.first.read[y.Name()] = s
		}
	}
	return m.chooseFirst()
}

// chooseFirst sets the first configuration, from what the files say and what the history has.
func (m *Manager) chooseFirst() (err error) {
	f, used := &m.first, m.history.Current().Sources
	latest := []config.Source{m.file}
	for _, y := range m.offered {
		if said, ok := f.read[y.Name()]; ok {
			memory := Memory{Empties: y.Empties(), State: stateOf(y, used)}
			memory.Take(Report{Said: said}, time.Now())
			latest = append(latest, memory.State)
		}
	}
	f.built, f.sources, f.refused, err = m.input.Start(latest, used)
	return err
}

// First returns the configuration with which this process starts.
func (m *Manager) First() *config.Config { return m.first.built.Config }

// Restore takes over the history of the old process; nil: there is none. Its documents of
// registries are the ones with which this process starts.
func (m *Manager) Restore(old *config.History) {
	if old == nil || !m.history.Restore(old) {
		return
	}
	before := m.first
	if err := m.chooseFirst(); err != nil { // impossible: the file was valid without it
		m.first = before
	}
}

// Begin records the first configuration, which is in use: the latest revision of the history goes
// on, if it is the same. given says that shares are given which the history may have. It returns
// the configuration of the latest revision; nil: there is none, or an earlier version had other
// keys.
func (m *Manager) Begin(given bool) (before *config.Config) {
	f, last := &m.first, m.history.Current()
	m.warn(f.built)
	samePins := len(config.Released(last.Sources, f.sources)) == 0
	sameShares := !last.OnlyShares || given
	if last.Number > 0 {
		if b, err := m.input.Build(last.Sources); err == nil {
			before = b.Config
		}
	}
	// The hash leaves keys out.
	same := before != nil && last.Hash == f.built.Hash() && config.Equal(before, f.built.Config)
	if same && samePins && sameShares {
		m.options.Applied(m.history.Resume(f.built.Config, f.sources))
	} else {
		r := m.revision(f.built, f.sources, "start")
		if before != nil {
			r.Diff = config.Summary(before, f.built.Config)
		}
		applied := m.history.Applied(r)
		m.options.Applied(applied)
		m.emitApplied(applied)
	}
	m.refuse(f.refused, false)
	if pinned := pinnedNames(f.sources); len(pinned) > 0 {
		m.options.Log.Warn().Strs("sources", pinned).Msg("a rollback holds: the documents of these sources are from an earlier revision")
	}
	return before
}

// pinnedNames returns the names of the sources with a pin.
func pinnedNames(sources []config.Source) (names []string) {
	for _, s := range sources {
		if s.Pin != nil {
			names = append(names, s.Name)
		}
	}
	return names
}
