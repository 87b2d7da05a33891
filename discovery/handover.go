package discovery

import (
	"maps"
	"slices"
)

// States returns the complete states of the watches of registries, by service: for a new process,
// the snapshot, and a service with a new name.
func (m *Manager) States() map[string]WatchState {
	states := m.states()
	if m.options.Complete != nil {
		for service, state := range states {
			state.Set = m.options.Complete(service, state.Set)
			states[service] = state
		}
	}
	return states
}

func (m *Manager) states() map[string]WatchState {
	m.mu.Lock()
	defer m.mu.Unlock()
	states := make(map[string]WatchState, len(m.watches))
	for service, w := range m.watches {
		if !w.static {
			states[service] = w.stateLocked()
		}
	}
	return states
}

// Save returns States for a new process. A set in use that the present source has not reported
// is added, but is not Known: it is of a source that a reload has replaced, or of a [Static] one,
// without a Source. The new process does not begin without peers for it.
func (m *Manager) Save() map[string]WatchState {
	all := m.States()
	m.mu.Lock()
	defer m.mu.Unlock()
	for service, w := range m.watches {
		if s, static := w.source.(*Static); static && len(s.set) > 0 {
			all[service] = WatchState{Set: s.set}
		} else if state, watched := all[service]; watched && !state.Known {
			state.Set = w.latest
			all[service] = state
		}
	}
	return all
}

// Restore sets what the process before has handed over. It is called before WatchAll.
func (m *Manager) Restore(states map[string]WatchState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.former = states
}

// Former returns what the process before had of a service. If it is not Known, see Save.
func (m *Manager) Former(service string) (state WatchState, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	state, ok = m.former[service]
	return state, ok
}

// WatchAll is Watch for the new sources of services. A service without a set continues with
// what is known of a source of the same name and addresses, as it may have had another name.
// Before Run that is what the process before has handed over.
func (m *Manager) WatchAll(sources map[string]Source) {
	type origin struct{ source, addresses string }
	states, known := m.known(), make(map[origin]WatchState) // by service, and by source
	for _, service := range slices.Backward(slices.Sorted(maps.Keys(states))) {
		if state := states[service]; state.Known {
			known[origin{state.Source, state.Addresses}] = state
		}
	}
	for _, service := range slices.Sorted(maps.Keys(sources)) {
		source := sources[service] // which adopts the first state that it can
		m.Watch(service, source, states[service], renamed(known[origin{NameOf(source), addressesOf(source)}], service, source))
	}
}

// known returns what is known about sources, by service.
func (m *Manager) known() map[string]WatchState {
	m.mu.Lock()
	former, begun := m.former, m.running
	m.mu.Unlock()
	if !begun {
		return former
	}
	states := m.States()
	for service, state := range states {
		state.Fresh = false // until its own source confirms it
		states[service] = state
	}
	return states
}

// renamed returns a state for a service of another name.
func renamed(state WatchState, service string, source Source) WatchState {
	if _, own := source.(ServiceNamer); own {
		return state
	}
	state.Set, state.Memory = slices.Clone(state.Set), slices.Clone(state.Memory)
	for n := range state.Set {
		state.Set[n].Service = service
	}
	state.Set = Normalize(state.Set)
	for n := range state.Memory {
		g := &state.Memory[n].Guard
		g.Departed, g.Probation = slices.Clone(g.Departed), slices.Clone(g.Probation)
		for d := range g.Departed {
			g.Departed[d].Instance.Service = service
		}
		for p := range g.Probation {
			g.Probation[p].Key.Service = service
		}
	}
	return state
}
