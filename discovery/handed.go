package discovery

import "time"

// Handed is the state of a watch that one process hands over to another.
type Handed struct {
	Service string
	Source  string // as in WatchStatus

	Instances []Instance
	Known     bool // Instances is a set, which may be empty
	Fresh     bool // the last query was answered

	// As in WatchStatus.

	Endpoint              string
	LastSuccess, Restored time.Time
}

// Handed returns the states of the watches of registries, in any order.
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

// Adopt sets the state of a watch to that of another process, if both have the same
// source and the watch has no set yet, and reports whether it did.
func (m *Manager) Adopt(h Handed) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.watches[h.Service]
	if w == nil || w.known || !h.Known || w.status.Source != h.Source {
		return false
	}
	w.origin = w.status.Source
	w.setLatestLocked(Normalize(h.Instances))
	state := WatchStale
	if h.Fresh {
		state = WatchFresh
	}
	w.setStateLocked(state, time.Now())
	w.status.Endpoint, w.status.LastSuccess, w.status.Restored = h.Endpoint, h.LastSuccess, h.Restored
	return true
}

// Pause ends the sources and waits for them. The sets and states of the watches do not
// change until Resume.
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
