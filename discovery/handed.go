package discovery

import "time"

// Handed is what a watch knows, for another process that goes on with it.
type Handed struct {
	Service string
	Source  string // in words, as in WatchStatus

	Instances []Instance
	Known     bool // Instances are a set, perhaps an empty one
	Fresh     bool // the last query was answered

	// As in WatchStatus.

	Endpoint              string
	LastSuccess, Restored time.Time
}

// Handed returns what the watches of registries know now, in any order.
func (m *Manager) Handed() []Handed {
	m.mu.Lock()
	defer m.mu.Unlock()
	var handed []Handed
	for _, w := range m.watches {
		if _, static := w.source.(*Static); static {
			continue
		}
		s := w.status
		handed = append(handed, Handed{
			Service: s.Service, Source: s.Source,
			Instances: w.latest, Known: w.known && w.origin == s.Source, Fresh: s.State == WatchFresh,
			Endpoint: s.Endpoint, LastSuccess: s.LastSuccess, Restored: s.Restored,
		})
	}
	return handed
}

// Adopt makes the set that another process had the set of a watch, if it is one of
// the same source and has none yet, and reports whether it is. The watch is as
// fresh as it was there.
func (m *Manager) Adopt(h Handed) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.watches[h.Service]
	if w == nil || w.known || !h.Known || w.status.Source != h.Source {
		return false
	}
	w.origin = w.status.Source
	w.setLatest(Normalize(h.Instances))
	state := WatchStale
	if h.Fresh {
		state = WatchFresh
	}
	w.setState(state, time.Now())
	w.status.Endpoint, w.status.LastSuccess, w.status.Restored = h.Endpoint, h.LastSuccess, h.Restored
	return true
}

// Pause ends the sources and returns when they have. The watches keep their sets
// and states, and nobody follows the registries until Resume.
func (m *Manager) Pause() {
	m.pausing.Lock()
	defer m.pausing.Unlock()
	m.mu.Lock()
	m.paused = true
	for _, w := range m.watches {
		if w.cancel != nil {
			w.cancel()
			w.cancel = nil
			m.starting = append(m.starting, w)
		}
	}
	m.mu.Unlock()
	m.sources.Wait()
}

// Resume starts the sources again after Pause.
func (m *Manager) Resume() {
	m.pausing.Lock()
	defer m.pausing.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paused = false
	m.poke()
}
