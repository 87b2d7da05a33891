package live

import (
	"slices"
	"time"

	"sluice/config"
)

// Status is the state of a source of documents.
type Status struct {
	Source  config.Source // in use
	Unused  bool          // it has no documents in use
	Offered string        // its own revision of its present documents; empty: not known
	Since   time.Time     // when Stale became what it is
	Stale   error         // why it cannot be read; nil: it can
	Refused *Refusal
}

// Statuses returns the state of the sources of the configuration in use, and of the sources
// that a refused file names.
func (m *Manager) Statuses() []Status {
	list := m.documents.statuses(m.history.Current().Sources)
	refused := m.refusals.all()
	for i := range list {
		if r, ok := refused[list[i].Source.Name]; ok {
			list[i].Refused = &r
		}
	}
	return list
}

// Refuses reports whether the file or a source offers what cannot be used.
func (m *Manager) Refuses() bool { return len(m.refusals.all()) > 0 }

// statuses returns the state of the sources that have documents in use, and of all that are
// followed.
func (d *documents) statuses(used []config.Source) (list []Status) {
	for _, s := range used {
		list = append(list, Status{Source: s})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.sources {
		name := f.spec.Name()
		i := slices.IndexFunc(list, func(s Status) bool { return s.Source.Name == name })
		if i < 0 {
			list = append(list, Status{Source: config.Source{Name: name, Kind: f.spec.Kind()}, Unused: true})
			i = len(list) - 1
		}
		s := &list[i]
		s.Since, s.Stale = f.since, f.stale()
		if f.known {
			s.Offered = f.memory.State.Revision
		}
	}
	return list
}

// SourceState is the state of a source in one word.
type SourceState string

const (
	SourceInUse   SourceState = "in_use"
	SourcePinned  SourceState = "pinned"
	SourceRefused SourceState = "refused" // its present documents cannot be used
	SourceStale   SourceState = "stale"   // it cannot be read
	SourceWaiting SourceState = "waiting" // it never could
)

// State returns the state in one word.
func (s *Status) State() SourceState {
	switch {
	case s.Stale != nil && s.Unused:
		return SourceWaiting
	case s.Stale != nil:
		return SourceStale
	case s.Refused != nil:
		return SourceRefused
	case s.Source.Pin != nil:
		return SourcePinned
	}
	return SourceInUse
}
