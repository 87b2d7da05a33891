package gateway

import (
	"slices"
	"time"

	"sluice/config"
	"sluice/config/live"
)

// firstConfiguration is the configuration with which this process starts.
type firstConfiguration struct {
	fileHash string                   // of the configuration file, as read
	read     map[string]config.Source // what the dynamic files say, by name
	built    *config.Built
	sources  []config.Source
	refused  map[string]error
	keepErr  error // why the history cannot be read
}

// readFirst reads the files and the history, and chooses the first configuration. It fails if
// the configuration file is not valid.
func (g *Gateway) readFirst() error {
	in := g.options.Input
	text, err := in.Read()
	if err != nil {
		return err
	}
	g.file = in.FileSource(text)
	alone, err := in.Build([]config.Source{g.file})
	if err != nil {
		return err
	}
	g.offered = alone.Config.Dynamic
	g.first.fileHash, g.first.read = g.file.Revision, make(map[string]config.Source)
	if path := alone.Config.Live.History; path != "" {
		g.first.keepErr = g.history.Keep(path, func(err error) {
			if err != nil {
				g.log.Warn().Err(err).Str("file", path).Msg("the history cannot be written: what is applied now is lost at a restart")
			} else {
				g.log.Info().Str("file", path).Msg("the history is written again")
			}
		})
	}
	for _, y := range g.offered {
		if y.Kind() != config.KindFile {
			continue
		}
		if s, err := config.ReadFiles(y.File); err == nil { // Run reports an error
			g.first.read[y.Name()] = s
		}
	}
	return g.choose()
}

// choose sets the first configuration, from what the files say and what the history has.
func (g *Gateway) choose() (err error) {
	f, used := &g.first, g.history.Current().Sources
	latest := []config.Source{g.file}
	for _, y := range g.offered {
		if said, ok := f.read[y.Name()]; ok {
			m := live.Memory{Empties: y.Empties(), State: stateOf(y, used)}
			m.Take(live.Report{Said: said}, time.Now())
			latest = append(latest, m.State)
		}
	}
	f.built, f.sources, f.refused, err = g.options.Input.Start(latest, used)
	return err
}

// adoptHistory takes over the history of the old process. Its documents of registries are
// those that this process starts with.
func (g *Gateway) adoptHistory() {
	old := g.handed.History
	if old == nil || !g.history.Adopt(old) {
		return
	}
	before := g.first
	if err := g.choose(); err != nil { // impossible: the file was valid without it
		g.first = before
	}
	g.Reload() // the listeners are those of the file, which may be pinned
}

// recordFirst records the first configuration: the latest revision of the history goes on, if
// it is the same.
func (g *Gateway) recordFirst() {
	f, last := &g.first, g.history.Current()
	if f.keepErr != nil {
		g.log.Warn().Err(f.keepErr).Msg("the history cannot be read: it begins again")
	}
	g.warn(f.built)
	samePins := len(config.Released(last.Sources, f.sources)) == 0
	sameShares := !last.Given || len(g.shares.all()) > 0 // those of an old process
	// The configuration of the latest revision; nil: an earlier version had other keys.
	var before *config.Config
	if last.Number > 0 {
		if b, err := g.options.Input.Build(last.Sources); err == nil {
			before = b.Config
		}
	}
	// The hash leaves keys out.
	same := before != nil && last.Hash == f.built.Hash() && config.Equal(before, f.built.Config)
	if same && samePins && sameShares {
		g.registerAs(g.history.Resume(f.built.Config, f.sources))
	} else {
		r := g.revision(f.built, f.sources, "start")
		if before != nil {
			r.Diff = config.Summary(before, f.built.Config)
		}
		applied := g.history.Applied(r)
		g.registerAs(applied)
		g.tellApplied(applied)
	}
	g.refuse(f.refused, false)
	if slices.ContainsFunc(f.sources, func(s config.Source) bool { return s.Pin != nil }) {
		g.log.Warn().Strs("sources", pinnedNames(f.sources)).Msg("a rollback holds: the documents of these sources are those of an earlier revision")
	}
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
